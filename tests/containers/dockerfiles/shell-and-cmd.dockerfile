#: differs Debian's buildah ignores SHELL for CMD and ENTRYPOINT; the reference: it is for their shell form, too.
#: config Cmd ["/bin/other","-c","x y"]
FROM scratch
SHELL ["/bin/other", "-c"]
CMD x y
