FROM scratch
COPY --chmod=640 file tree/sub/script /d/
