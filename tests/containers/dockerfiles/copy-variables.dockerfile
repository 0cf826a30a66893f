FROM scratch
ENV d=/dest f=file
COPY $f ${d}/
