#: differs buildah wants a target, names in lower case, and no agent of keys
#: expect /root/a file 644 0:0 content\none
#: expect /root/b file 644 0:0 new\none\nsub\n
#: expect /root/c file 644 0:0 cached\n
#: absent /w/file
#: absent /G\xe4/t
FROM pc-x86-64-mini
WORKDIR /w
RUN --mount=type=bind cat file tree/one >/root/a
WORKDIR /x
RUN --mount=source=tree,RW rmdir empty && touch new && ls >/root/b
RUN --mount=type=Cache,Target="/c c",Sharing=LOCKED,ro=f echo cached >"/c c/x"
RUN --mount=type=cache,dst=/no,destination=/c\ c,readonly --mount=type=ssh cp "/c c/x" /root/c
RUN mkdir $(printf '/G\344') && ln -s $(printf '/G\344') /l
RUN --mount=type=tmpfs,target=/l/t touch /l/t/x
