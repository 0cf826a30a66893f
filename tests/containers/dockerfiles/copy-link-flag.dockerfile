#: differs Debian's buildah 1.28 does not know --link.
#: expect /d/file file 644 0:0 content\n
FROM scratch
COPY --link file /d/
