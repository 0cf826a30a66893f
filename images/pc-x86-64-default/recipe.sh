#!/bin/sh
# recipe.sh OUTDIR: the image pc-x86-64-default, Debian with systemd. See ../common/lib.sh, ../common/debian.sh.
set -eu
recipe=pc-x86-64-default
outdir=$1
here=$WALT_IMAGES_DIR/$recipe
models=pc-x86-64
. "$WALT_IMAGES_DIR/common/lib.sh"
. "$WALT_IMAGES_DIR/common/debian.sh"

need apt-get=apt dpkg-deb=dpkg mmdebstrap=mmdebstrap tar=tar
umask 022
work=$(mktemp -d "${TMPDIR:-/var/tmp}/walt-recipe.XXXXXX")
trap 'rm -rf "$work"' EXIT
# apt's unprivileged user reads a small repository there
chmod 755 "$work"
root=$work/rootfs

debian_rootfs
install_boot "$root"
debian_done
