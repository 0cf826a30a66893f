#: differs Debian's buildah makes the directories of some volumes; BuildKit, the reference's builder, none.
#: absent /a
#: config Volumes {"/a":{},"/b":{},"/c d":{}}
FROM scratch
VOLUME /a /b
VOLUME ["/c d"]
