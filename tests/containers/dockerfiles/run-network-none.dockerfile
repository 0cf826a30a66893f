#: differs Debian's buildah 1.28 ignores --network of RUN.
#: expect /root/links file 644 0:0 lo\n
FROM pc-x86-64-mini
RUN --network=none ls /sys/class/net >/root/links
