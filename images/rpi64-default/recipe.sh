#!/bin/sh
# recipe.sh OUTDIR: the image rpi64-default, 64-bit Debian with systemd for Raspberry Pis and for arm64 machines with
# UEFI, which describe themselves and need no device tree of ours.
# See ../common/lib.sh, ../common/debian.sh, ../common/rpi.sh.
#
# Not for the 5 B: the kernel of this Debian release has no device tree and no drivers for it.
set -eu
recipe=rpi64-default
outdir=$1
here=$WALT_IMAGES_DIR/$recipe
arch=arm64
models='rpi-3-b-plus broadcom/bcm2837-rpi-3-b-plus.dtb
rpi-4-b broadcom/bcm2711-rpi-4-b.dtb
rpi-400 broadcom/bcm2711-rpi-400.dtb
uefi-arm64'
. "$WALT_IMAGES_DIR/common/lib.sh"
. "$WALT_IMAGES_DIR/common/debian.sh"
. "$WALT_IMAGES_DIR/common/rpi.sh"
rpi_image
