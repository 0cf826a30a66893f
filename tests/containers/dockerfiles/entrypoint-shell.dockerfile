FROM scratch
ENTRYPOINT exec a $b
