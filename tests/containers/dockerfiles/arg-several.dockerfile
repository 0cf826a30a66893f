FROM scratch
ARG a=1 b=2 c
LABEL x=$a$b${c:-unset}
