FROM scratch AS base
ONBUILD COPY file /triggered
ONBUILD ENV t=1
FROM base
COPY other /y
