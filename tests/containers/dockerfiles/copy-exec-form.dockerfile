FROM scratch
COPY ["name with blanks", "file", "/d d/"]
