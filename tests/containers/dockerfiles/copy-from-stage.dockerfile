FROM scratch AS one
COPY --chown=7:8 tree /t/
FROM scratch
COPY --from=one /t /u/
COPY --from=0 /t/one /v
