FROM scratch
COPY file other /d/
