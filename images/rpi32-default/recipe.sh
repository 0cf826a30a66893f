#!/bin/sh
# recipe.sh OUTDIR: the image rpi32-default, 32-bit Debian (armhf) with systemd for Raspberry Pis.
# See ../common/lib.sh, ../common/debian.sh, ../common/rpi.sh.
#
# Not for the B and B+: their CPU is older than what armhf is made for. Not for the 4 B and 400: this kernel has no
# driver for their network card; they run rpi64-default.
set -eu
recipe=rpi32-default
outdir=$1
here=$WALT_IMAGES_DIR/$recipe
arch=armhf
models='rpi-2-b bcm2836-rpi-2-b.dtb
rpi-3-b bcm2837-rpi-3-b.dtb
rpi-3-b-plus bcm2837-rpi-3-b-plus.dtb'
. "$WALT_IMAGES_DIR/common/lib.sh"
. "$WALT_IMAGES_DIR/common/debian.sh"
. "$WALT_IMAGES_DIR/common/rpi.sh"
rpi_image
