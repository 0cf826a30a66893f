#: options --build-arg v=given
FROM scratch
LABEL v=${v:-none}
