FROM pc-x86-64-mini
RUN --mount=type=cache,target=/c echo 1 >/c/kept
RUN --mount=type=cache,target=/c cat /c/kept >/root/f
