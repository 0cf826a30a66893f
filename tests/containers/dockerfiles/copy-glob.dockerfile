FROM scratch
COPY tree/*e /d/
COPY tree/s?b/[a-z]* /e/
