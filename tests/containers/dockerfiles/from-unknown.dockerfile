#: fails cannot find the image 'nothing'
FROM nothing
