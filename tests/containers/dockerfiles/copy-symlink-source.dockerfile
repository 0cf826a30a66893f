FROM scratch
COPY link-to-file /x
COPY link-to-tree /t/
