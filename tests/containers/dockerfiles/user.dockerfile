FROM pc-x86-64-mini
USER 12:34
RUN id -u >/tmp/u; id -g >>/tmp/u
