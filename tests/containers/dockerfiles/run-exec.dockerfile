FROM pc-x86-64-mini
RUN ["/bin/sh", "-c", "echo $HOME >/root/home"]
