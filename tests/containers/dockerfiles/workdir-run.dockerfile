FROM pc-x86-64-mini
WORKDIR /srv/w
RUN pwd >here
