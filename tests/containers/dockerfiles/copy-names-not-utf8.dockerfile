#: differs buildah does not find them by a pattern
#: expect /b/G\xe4rten file 644 0:0 e4
#: expect /b/G\xf6rten file 644 0:0 f6
#: expect /b/G\xfcrten file 644 0:0 fc
#: expect /c/G\xe4rten file 644 0:0 e4
#: expect /c/G\xf6rten file 644 0:0 f6
#: expect /d/G\xfcrten file 644 0:0 fc
FROM scratch AS s
COPY latin/G* /a/
FROM pc-x86-64-mini
COPY --from=s /a/G?rten /b/
COPY latin/ /c/
RUN mkdir /d && cp /b/* /d
