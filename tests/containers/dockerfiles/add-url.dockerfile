#: fails is not fetched by this server
#: differs The server fetches nothing for its users from its own place in the network.
FROM scratch
ADD http://127.0.0.1:1/x /x
