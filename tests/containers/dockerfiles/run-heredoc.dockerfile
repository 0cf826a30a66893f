#: differs Debian's buildah 1.28 knows no here-documents.
#: expect /root/a file 644 0:0 one two\n
#: expect /root/b file 644 0:0 in $x\n
#: expect /root/c file 644 0:0 script\n
FROM pc-x86-64-mini
RUN <<EOF
x=one
echo $x two >/root/a
EOF
RUN cat <<"EOF" >/root/b
in $x
EOF
RUN <<EOF
#!/bin/sh
echo script >/root/c
EOF
