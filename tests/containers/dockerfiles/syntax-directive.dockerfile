# syntax=docker/dockerfile:1
FROM scratch
COPY file /x
