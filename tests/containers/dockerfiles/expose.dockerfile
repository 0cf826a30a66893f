FROM scratch
EXPOSE 80 81/udp
ENV p=90
EXPOSE $p/tcp
