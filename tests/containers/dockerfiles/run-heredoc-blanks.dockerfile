#: differs Debian's buildah 1.28 knows no here-documents.
#: expect /root/a file 644 0:0 one\n
#: expect /root/b file 644 0:0 4 two\n
FROM pc-x86-64-mini
RUN cat << EOF >/root/a
one
EOF
RUN <<EOF sh
echo $((1 << 2)) two >/root/b
EOF
