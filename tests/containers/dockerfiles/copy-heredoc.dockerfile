#: differs Debian's buildah 1.28 knows no here-documents.
#: expect /a file 644 0:0 value x\n"q"\n
#: expect /d/F file 644 0:0 raw $v\n
#: expect /d/G file 644 0:0 tab\n
FROM scratch
ENV v=value
COPY <<EOF /a
$v x
"q"
EOF
COPY <<"F" <<-G /d/
raw $v
F
	tab
	G
