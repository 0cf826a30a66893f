FROM scratch AS s
COPY latin/G* /a/
FROM pc-x86-64-mini
COPY --from=s /a/G?rten /b/
COPY latin/ /c/
RUN mkdir /d && cp /b/* /d
