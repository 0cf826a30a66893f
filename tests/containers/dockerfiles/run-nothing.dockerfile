FROM pc-x86-64-mini
RUN true
