FROM pc-x86-64-mini
RUN --mount=type=bind,target=/ctx cat /ctx/file >/root/f; ! touch /ctx/x
