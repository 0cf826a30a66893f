#: options --build-arg v=arg
FROM scratch
ARG v
ENV v=env
LABEL v=$v
