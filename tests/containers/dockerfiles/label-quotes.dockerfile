FROM scratch
LABEL "a.b"="c d" e='f' g="multi \
line"
LABEL a.b=again
