FROM scratch
COPY file /x
COPY other /x
