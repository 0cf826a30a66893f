#: options --secret id=s,src=@secret
FROM pc-x86-64-mini
RUN --mount=type=secret,id=s cat /run/secrets/s >/root/f
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
