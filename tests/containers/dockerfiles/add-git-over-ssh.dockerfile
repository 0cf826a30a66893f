#: fails your key
FROM scratch
ADD git@localhost:x.git /x
