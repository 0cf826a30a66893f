#: differs Debian's buildah 1.28 knows no directive check, and looks for no other one behind it.
#: label a=b c=d
# check=skip=all
# escape=`
FROM scratch
LABEL a=b `
  c=d
