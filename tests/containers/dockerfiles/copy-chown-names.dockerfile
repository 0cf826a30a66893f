FROM pc-x86-64-mini
COPY --chown=root:root file /o/
COPY --chown=55 file /p/
COPY --chown=55:66 tree /q/
