FROM pc-x86-64-mini
RUN echo "ann:x:77:78::/home/ann:/bin/sh" >>/etc/passwd
USER ann
RUN id -u >/tmp/u; id -g >>/tmp/u; pwd >>/tmp/u
