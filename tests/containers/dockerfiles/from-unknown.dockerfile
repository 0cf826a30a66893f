#: fails there is no image 'nothing'
FROM nothing
