#: fails must end with /
#: differs Debian's buildah makes a directory; the reference: with several sources, the destination must end with a slash.
FROM scratch
COPY file other /d
