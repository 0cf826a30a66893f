#: differs The name of a default image means nothing to buildah.
#: expect /root/x file 644 0:0 content\n
FROM waltplatform/pc-x86-64-mini
COPY file /root/x
