FROM pc-x86-64-mini AS one
RUN echo from >/given
FROM pc-x86-64-mini
RUN --mount=type=bind,from=one,source=/given,target=/mnt/g cat /mnt/g >/root/f
