FROM scratch
COPY archive.tar.gz /a/
