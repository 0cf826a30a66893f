FROM scratch
ENV s=set e=""
LABEL a=${s:-x} b=${u:-x} c=${e:-x} d=${s:+x} e=${u:+x} f=${e:+x}
