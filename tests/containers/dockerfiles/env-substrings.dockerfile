#: differs Debian's buildah 1.28 knows only :- and :+.
#: label a=text b=plain c=.gz d= e=1-2_3 f=x-${p}
FROM scratch
ENV p=plain.text.gz q=1_2_3 n=
LABEL a=${p##*n.t} b=${p%%.*} c=${p#*.text} d=${n:+set} e=${q/_/-} f=x-\${p}
LABEL a=${n-text}text
LABEL a=${n:-text}
