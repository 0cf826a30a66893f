#: fails cannot reach the server
FROM scratch
ADD http://127.0.0.1:9/x /x
