#: differs Debian's buildah does not find a stage by a name in other case; the reference's names are case-insensitive.
#: expect /x file 644 0:0 content\n
#: expect /y file 600 0:0 another\n
FROM scratch AS One
COPY file /x
FROM ONE
COPY other /y
