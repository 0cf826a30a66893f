FROM scratch
COPY links /l/
