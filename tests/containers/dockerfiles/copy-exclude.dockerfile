#: differs Debian's buildah 1.28 does not know --exclude.
#: expect /t/one file 600 0:0 one
#: absent /t/sub
FROM scratch
COPY --exclude=sub tree /t/
