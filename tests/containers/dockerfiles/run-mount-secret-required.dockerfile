#: fails the secret 's' is needed
FROM pc-x86-64-mini
RUN --mount=type=secret,id=s,required=true true
