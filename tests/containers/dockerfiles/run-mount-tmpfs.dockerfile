FROM pc-x86-64-mini
RUN --mount=type=tmpfs,target=/t echo 1 >/t/x
RUN test ! -e /t/x
