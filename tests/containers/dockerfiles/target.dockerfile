#: options --target two
FROM scratch AS one
COPY file /one
FROM scratch AS two
COPY other /two
FROM scratch
COPY absent /never
