FROM scratch AS one
ARG v=inner
FROM scratch
LABEL v=${v:-gone}
