#: differs Debian's buildah 1.28 knows only :- and :+.
#: label a=b.tar.gz b=/a/b.tar c=/a/b d=-a-b.tar.gz e=x
FROM scratch
ENV p=/a/b.tar.gz
LABEL a=${p##*/} b=${p%.*} c=${p%%.*} d=${p//\//-} e=${u-x}
