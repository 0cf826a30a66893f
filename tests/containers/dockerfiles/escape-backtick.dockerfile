# escape=`
#: differs Debian's buildah takes the directive for lines only, and takes backslashes away from values.
#: config Env ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","a=1","b=x\\y","c=$a"]
FROM scratch
ENV a=1 `
    b=x\y c=`$a
