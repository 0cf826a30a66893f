#: fails is not a directory
FROM scratch
COPY file /x
COPY tree /x/
