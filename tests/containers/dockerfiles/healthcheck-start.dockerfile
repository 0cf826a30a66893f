FROM scratch
HEALTHCHECK --start-period=500ms --interval=1h CMD ["a", "b c"]
HEALTHCHECK --start-period=2m CMD ["d"]
