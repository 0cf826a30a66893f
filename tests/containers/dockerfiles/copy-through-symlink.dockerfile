FROM pc-x86-64-mini
RUN mkdir /real && ln -s real /alias
COPY file /alias/
COPY tree /alias/t
