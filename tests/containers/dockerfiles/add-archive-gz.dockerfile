FROM scratch
ADD archive.tar.gz /a/
