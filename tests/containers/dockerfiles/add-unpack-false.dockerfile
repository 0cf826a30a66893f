#: differs Debian's buildah 1.28 does not know --unpack.
#: absent /d/in
#: expect /d/archive.tar.gz file 644 0:0
#: expect /e/in/one file 644 0:0 one
FROM scratch
ADD --unpack=false archive.tar.gz /d/
ADD --unpack archive.tar.gz /e/
