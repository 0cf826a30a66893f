FROM scratch
ENV foo=/bar
LABEL a=\$foo b=\${foo} c="\$foo" d='$foo' e="x\"y"
