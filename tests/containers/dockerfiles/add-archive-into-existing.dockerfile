FROM scratch
COPY tree /a/
ADD archive.tar /a
