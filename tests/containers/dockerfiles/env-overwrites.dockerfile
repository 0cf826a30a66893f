FROM pc-x86-64-mini
ENV PATH=/x:$PATH
RUN echo $PATH >/root/path
