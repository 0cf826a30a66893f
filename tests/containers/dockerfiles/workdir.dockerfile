FROM scratch
WORKDIR /a
WORKDIR b
ENV p=c
WORKDIR $p/../d
