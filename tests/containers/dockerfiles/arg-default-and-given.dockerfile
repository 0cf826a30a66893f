#: options --build-arg b=given
FROM scratch
ARG a=one
ARG b=two
ARG c
ENV A=$a B=$b C=${c:-none}
LABEL l=$a-$b
