#: fails ended with status 3
FROM pc-x86-64-mini
RUN exit 3
