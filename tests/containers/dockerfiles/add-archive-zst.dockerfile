#: differs Debian's buildah 1.28 copies archives compressed by zstd as they are; the reference unpacks local tar archives whatever their compression.
#: expect /a/in/one file 644 0:0 one
#: expect /a/in dir 755 0:0
FROM scratch
ADD archive.tar.zst /a/
