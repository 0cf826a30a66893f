FROM scratch
ONBUILD ENV a=1
ONBUILD LABEL b=c d="e f"
