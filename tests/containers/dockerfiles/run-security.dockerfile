#: fails no more rights
#: differs Debian's buildah 1.28 does not know --security; more rights than an image shell has are nobody's here.
FROM pc-x86-64-mini
RUN --security=sandbox true
RUN --security=insecure true
