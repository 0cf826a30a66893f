#: ignore file
#: fails is not in the context
FROM scratch
COPY file /x
