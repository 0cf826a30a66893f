FROM scratch
ENV a=1 b="2 3" c=4\ 5
ENV d some  text
ENV e='q "x"'
