FROM scratch
WORKDIR /w
COPY file x
COPY file sub/
COPY tree .
