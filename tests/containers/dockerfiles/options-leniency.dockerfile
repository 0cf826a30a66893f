#: differs buildah takes fewer forms
#: expect /a file 640 1:2 content\n
#: expect /b file 644 0:0 content\n
#: exposed 81/tcp
FROM --platform=linux/x86_64 pc-x86-64-mini
COPY --chown="1:2" --chmod='640' --link=TRUE file /a
COPY --chown= --chmod= --from= -- file /b
EXPOSE 127.0.0.1:80:81
HEALTHCHECK --interval=0 --retries= CMD true
