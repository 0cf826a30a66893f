FROM pc-x86-64-mini
LABEL x=y
