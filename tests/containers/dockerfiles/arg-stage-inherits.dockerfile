#: differs Debian's buildah forgets ARGs of the stage a stage is based on; "Build variables" of the documentation: they are inherited by child stages.
#: label v=inner
FROM scratch AS one
ARG v=inner
FROM one
LABEL v=${v:-gone}
