#: fails is needed
#: differs Debian's buildah 1.28 does not know ${x:?}.
FROM scratch
LABEL a="${u:?is needed}"
