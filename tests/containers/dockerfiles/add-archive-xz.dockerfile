FROM scratch
ADD archive.tar.xz /a/
