#: differs Debian's buildah keeps a range as it is; BuildKit, the reference's builder, lists its ports.
#: exposed 80/tcp 81/tcp
FROM scratch
EXPOSE 80-81
