#: ignore tree/sub
#: ignore *.tar*
#: ignore !archive.tar
FROM scratch
COPY tree /t/
COPY archive* /a/
