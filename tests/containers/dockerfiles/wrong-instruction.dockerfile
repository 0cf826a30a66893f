#: fails line 3
FROM scratch
NOTHING x
