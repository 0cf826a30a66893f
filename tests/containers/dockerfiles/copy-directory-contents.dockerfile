FROM scratch
COPY tree /t
