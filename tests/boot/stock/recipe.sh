#!/bin/sh
# recipe.sh OUTDIR: an image as somebody makes one who knows Debian and not WalT: Debian's own initramfs-tools
# with boot=nfs, and nothing for WalT but labels and /boot/<model>. Run as ../../../images/common/lib.sh says.
set -eu
recipe=stock
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
    --include=systemd-sysv,udev,openssh-server,busybox-static,initramfs-tools,nfs-common,linux-image-amd64 \
    "$SUITE" "$root" "$work/sources.list" >&2

mkdir -p "$root/boot/pc-x86-64"
ln -s ../../vmlinuz "$root/boot/pc-x86-64/kernel"
ln -s ../../initrd.img "$root/boot/pc-x86-64/initrd"
# No ports: the initial RAM disk asks the port mapper.
cat >"$root/boot/pc-x86-64/start.ipxe" <<'END'
#!ipxe
set nfs_root ${next-server}:/var/lib/walt/nodes/${mac}/fs
set ip_args ip=${ip}:${next-server}:${gateway}:${netmask}:${hostname}::off BOOTIF=01-${mac:hexhyp}
initrd initrd
kernel kernel root=/dev/nfs boot=nfs nfsroot=${nfs_root},ro,vers=3,nolock ${ip_args} init=/bin/walt-init panic=30 console=ttyS0 || reboot
boot || reboot
END

mkdir -p "$outdir"
pack "$root" "$outdir/rootfs.tar"
echo '{"Labels": {"walt.node.models": "pc-x86-64"}, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}' >"$outdir/config.json"
say "$recipe: done"
