#: differs Debian's buildah 1.28 sets TARGETARCH also without ARG in the stage; the reference wants it declared.
#: label a=amd64 b=
FROM scratch
LABEL b=$TARGETOS
ARG TARGETARCH
LABEL a=$TARGETARCH
