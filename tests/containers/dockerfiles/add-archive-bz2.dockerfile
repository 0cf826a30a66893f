FROM scratch
ADD archive.tar.bz2 /a/
