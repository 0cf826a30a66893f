#: fails the secret 's' is required
FROM pc-x86-64-mini
RUN --mount=type=secret,id=s,required=true true
