FROM scratch
ADD archive.tar /a/
