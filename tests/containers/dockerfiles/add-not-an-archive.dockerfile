FROM scratch
ADD broken.gz /a/
