#!/bin/sh
# recipe.sh OUTDIR: rootfs.tar with a small Debian as somebody installs one: systemd, apt with the sources of this
# machine, nothing of WalT. Run as ../../../images/common/lib.sh says.
set -eu
recipe=debian
outdir=$1
. "$WALT_IMAGES_DIR/common/lib.sh"

need apt-get=apt mmdebstrap=mmdebstrap tar=tar
umask 022
work=$(mktemp -d "${TMPDIR:-/var/tmp}/walt-recipe.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/rootfs

write_sources "$work/sources.list"
apt_settings >"$work/apt.conf"
say "installing Debian $SUITE"
mmdebstrap --mode=root --variant=minbase --architectures=amd64 --aptopt="$work/apt.conf" \
    --dpkgopt=force-unsafe-io --include=systemd-sysv,iproute2 "$SUITE" "$root" "$work/sources.list" >&2
apt_settings >"$root/etc/apt/apt.conf.d/90machine"
# The newest package lists come from the mirror when the test installs something.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin

mkdir -p "$outdir"
tar -C "$root" --numeric-owner -cf "$outdir/rootfs.tar" .
say "$recipe: done"
