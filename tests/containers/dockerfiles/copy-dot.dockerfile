FROM scratch
COPY tree/. /t/
COPY ./tree/sub /u/
