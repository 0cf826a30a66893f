FROM scratch
ADD --chown=7:8 --chmod=0711 tree /t/
ADD --chmod=600 file other /d/
