#: ignore # a comment
#: ignore **/one
#: ignore /links/?
#: ignore tree/sub/*
#: ignore !tree/sub/script
#: ignore modes/
FROM scratch
COPY . /all/
