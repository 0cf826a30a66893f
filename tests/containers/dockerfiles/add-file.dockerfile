FROM scratch
ADD file /x
ADD file /d/
