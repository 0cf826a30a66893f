#: differs Debian's buildah 1.28 does not know --parents.
#: expect /d/tree/sub/script file 755 0:0 #!/bin/sh\n
#: expect /e/sub/script file 755 0:0 #!/bin/sh\n
FROM scratch
COPY --parents tree/sub/script /d/
COPY --parents tree/./sub/scr* /e/
