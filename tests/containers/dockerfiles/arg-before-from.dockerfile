#: options --build-arg base=scratch
ARG base=nothing
ARG other
FROM ${base}
ARG base
COPY file /${base:-unset}
