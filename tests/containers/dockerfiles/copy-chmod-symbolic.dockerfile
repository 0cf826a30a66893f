#: differs Debian's buildah 1.28 takes octal numbers only.
#: expect /t/one file 644 0:0 one
#: expect /t/empty dir 755 0:0
#: expect /t/sub/script file 755 0:0
#: expect /d/script file 4555 0:0
#: expect /e/f file 755 0:0 x\n
#: expect /a/in/one file 600 0:0 one
#: expect /a/in dir 700 0:0
FROM scratch
COPY --chmod=u=rwX,go=rX tree /t/
COPY --chmod=a-w,u+s tree/sub/script /d/
COPY --chmod=+x <<END /e/f
x
END
ADD --chmod=go= archive.tar.gz /a/
