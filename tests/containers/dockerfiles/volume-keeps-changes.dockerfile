#: differs Debian's buildah drops what a RUN changes in a volume; the reference: with BuildKit, it is kept.
#: expect /v/x file 644 0:0 1\n
FROM pc-x86-64-mini
VOLUME /v
RUN mkdir -p /v && echo 1 >/v/x
