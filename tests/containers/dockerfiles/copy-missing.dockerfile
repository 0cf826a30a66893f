#: fails is not in the context
FROM scratch
COPY absent /x
