#!/bin/sh
# recipe.sh OUTDIR: a computer with Debian, as an installer leaves it: systemd, ssh, and nothing of ours. WALT_SUITE is
# the release. Leaves OUTDIR/disk.raw (ext4), OUTDIR/kernel, OUTDIR/initrd and OUTDIR/key, which opens root's account.
# Run as ../../../images/common/lib.sh says.
set -eu
recipe=computer
outdir=$1
. "$WALT_IMAGES_DIR/common/lib.sh"
SUITE=$WALT_SUITE
# Room of the disk: packages, qemu among them, an image, and its recipe's work.
DISK=12G

need apt-get=apt mmdebstrap=mmdebstrap mke2fs=e2fsprogs ssh-keygen=openssh-client
umask 022
work=$(mktemp -d "${TMPDIR:-/var/tmp}/walt-recipe.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/rootfs

write_sources "$work/sources.list"
apt_settings >"$work/apt.conf"
say "installing Debian $SUITE"
# systemd-resolved would listen where the server's own DNS does not: a test of its own is more than this one needs.
mmdebstrap --mode=root --variant=minbase --architectures=amd64 --aptopt="$work/apt.conf" \
    --include=systemd-sysv,udev,dbus,openssh-server,linux-image-amd64,iproute2,ca-certificates,less,apt-utils \
    "$SUITE" "$root" "$work/sources.list" >&2

mkdir -p "$outdir" "$root/root/.ssh" "$root/etc/systemd/network"
ssh-keygen -q -t ed25519 -N '' -C test -f "$outdir/key"
install -m 600 "$outdir/key.pub" "$root/root/.ssh/authorized_keys"
cp "$work/apt.conf" "$root/etc/apt/apt.conf.d/90machine"
echo computer >"$root/etc/hostname"
echo '127.0.0.1 localhost computer' >"$root/etc/hosts"
echo '/dev/vda / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
# The addresses of qemu's own network.
printf '[Match]\nName=en*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' >"$root/etc/systemd/network/50-wired.network"
echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
ln -sfn /lib/systemd/system/systemd-networkd.service \
    "$root/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
cp -L "$root/vmlinuz" "$outdir/kernel"
cp -L "$root/initrd.img" "$outdir/initrd"
say "making a disk"
mke2fs -q -t ext4 -F -d "$root" "$outdir/disk.raw.part" "$DISK" >&2
mv "$outdir/disk.raw.part" "$outdir/disk.raw"
say "$recipe: done"
