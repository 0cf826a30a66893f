#: options --build-arg v=given
FROM pc-x86-64-mini
ARG v
ARG w=default
RUN echo "$v $w" >/root/arg
