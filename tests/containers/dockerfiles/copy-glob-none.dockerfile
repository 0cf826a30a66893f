#: fails is not in the context
FROM scratch
COPY nothing* /d/
