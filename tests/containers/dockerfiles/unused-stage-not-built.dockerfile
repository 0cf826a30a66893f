#: differs Debian's buildah 1.28 builds every stage.
#: expect /x file 644 0:0 content\n
FROM scratch AS unused
COPY absent /x
FROM scratch
COPY file /x
