FROM scratch
# comment
ENV a=1 \
  # inside

  b=2 \
  c="x # y"
LABEL d=e\
f
