FROM scratch
ADD archive.tar /new
