FROM scratch
CMD ["mine"]
ENTRYPOINT ["e"]
