FROM scratch
COPY tree /t/
COPY file /t
