FROM scratch
MAINTAINER Ann <a@example.org>
