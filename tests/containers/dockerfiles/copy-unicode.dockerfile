FROM scratch
COPY ünï /ü/
