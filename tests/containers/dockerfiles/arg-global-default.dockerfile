#: differs In buildah 1.28, an ARG before FROM does not see those before it in the same instruction.
#: label one=from-outside-from-outside-more two=from-outside
#: options --build-arg given=from-outside
ARG base=scratch given=default derived=${given}-more
FROM ${base} AS one
ARG given
ARG derived
LABEL one=$given-$derived
FROM one
ARG given=again
LABEL two=$given
