FROM scratch
COPY symlinks /s/
