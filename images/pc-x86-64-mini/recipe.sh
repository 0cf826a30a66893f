#!/bin/sh
# recipe.sh OUTDIR: the image pc-x86-64-mini, the smallest that boots on a PC and answers ssh.
# busybox and dropbear, both static, a Debian kernel and our initrd. No hooks for image shells:
# it is the plain kind, in which a shell is all that runs. See ../common/lib.sh.
set -eu
recipe=pc-x86-64-mini
outdir=$1
here=$WALT_IMAGES_DIR/$recipe
. "$WALT_IMAGES_DIR/common/lib.sh"

# Modules that the image offers besides those in the initrd, each with what it depends on. ext4 asks for its checksum
# by name, not by symbol, and vfat for its character sets; walt-init uses loop and ext4 for attributes of files. Disks
# of virtual nodes are on virtio_scsi; sd_mod drives what is on it, on ahci and on usb_storage.
EXTRA_MODULES="ext4 crc32c_generic vfat nls_cp437 nls_ascii nls_iso8859_1 nls_utf8 nbd zram nfsv4 squashfs loop tun
    bridge veth 8021q virtio_blk virtio_scsi sd_mod ahci nvme usb_storage"

need apt-get=apt dpkg-deb=dpkg dpkg-source=dpkg-dev patch=patch gcc=gcc make=make tar=tar \
    busybox=busybox-static
umask 022
work=$(mktemp -d "${TMPDIR:-/var/tmp}/walt-recipe.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/rootfs
apt_private_setup

# dropbear, static: as Debian's package it needs 4 MB of shared libraries, for a server of 0.2 MB.
# Debian's source with Debian's patches, so that its security updates arrive here too.
build_dropbear() {
    version=$(apt_private --only-source --print-uris source dropbear |
        sed -n 's/.* dropbear_\(.*\)\.dsc .*/\1/p')
    [ -n "$version" ] || die "apt has no source package dropbear"
    dropbear=$WALT_CACHE/dropbear-static-$version
    [ ! -x "$dropbear" ] || return 0
    mkdir -p "$work/src" && cd "$work/src"
    say "building dropbear $version"
    apt_private --download-only --only-source source "dropbear=$version" >&2
    dpkg-source --no-check -x ./*.dsc src >&2
    cd src
    # no compression (needs zlib), no login records; the rest is upstream's choice
    ./configure --disable-zlib --disable-lastlog --disable-utmp --disable-utmpx --disable-wtmp \
        --disable-wtmpx --disable-pututline --disable-pututxline --enable-bundled-libtom \
        --enable-static --disable-harden CFLAGS='-Os -ffunction-sections -fdata-sections' \
        LDFLAGS='-static -Wl,--gc-sections' >"$work/log" 2>&1 &&
        make -j"$(nproc)" PROGRAMS=dropbear >>"$work/log" 2>&1 ||
        { tail -n 20 "$work/log" >&2; die "dropbear cannot be built here"; }
    strip dropbear
    mv dropbear "$dropbear.part" && mv "$dropbear.part" "$dropbear"
    cd /
}

# Copies modules and their dependencies, and writes the indices that modprobe reads.
install_modules() {
    from=$work/kernel/lib/modules/$release
    to=$root/lib/modules/$release
    busybox depmod -b "$work/kernel" "$release"
    mkdir -p "$to"
    for name in $EXTRA_MODULES; do
        awk -v n="$name" '{ f = $1; sub(/:$/, "", f); b = f; sub(/.*\//, "", b); sub(/\.ko$/, "", b)
            gsub(/-/, "_", b); if (b == n) { print f; for (i = 2; i <= NF; i++) print $i } }' \
            "$from/modules.dep"
    done >"$work/modules"
    # what the initrd has is needed again when cards are plugged or modules reloaded
    busybox cpio -t <"$root/boot/pc-x86-64/initrd" 2>/dev/null |
        sed -n "s|^.*lib/modules/$release/\(kernel/.*\.ko\)\$|\1|p" >>"$work/modules"
    sort -u "$work/modules" | while read -r path; do
        mkdir -p "$to/${path%/*}"
        cp "$from/$path" "$to/$path"
    done
    cp "$from/modules.builtin" "$from/modules.order" "$to/"
    busybox depmod -b "$root" "$release"
}

build_dropbear
kernel=$(kernel_package)
[ -n "$kernel" ] || die "apt does not know linux-image-amd64"
release=${kernel#linux-image-}
debs "$work/busybox" busybox-static
debs "$work/kernel" "$kernel"

say "putting the image together"
mkdir -p "$root"
for dir in bin dev etc/dropbear mnt proc root run sbin sys tmp usr/bin usr/sbin usr/local/bin \
    usr/local/sbin var/log var/tmp home; do
    mkdir -p "$root/$dir"
done
chmod 700 "$root/root" "$root/etc/dropbear"
chmod 1777 "$root/tmp" "$root/var/tmp"
ln -s ../run "$root/var/run"
cp "$work/busybox/bin/busybox" "$root/bin/busybox"
# Debian's ash asks the terminal for its cursor behind each prompt (FEATURE_EDITING_ASK_TERMINAL; nothing switches it
# off at run time), and whoever waits for the prompt at the end of a line waits for ever: the question becomes an empty
# string. Its vi shares it, where it does not know the size of the terminal: it then takes 80x24.
LC_ALL=C sed -i 's/\x1b\[6n/\x00[6n/g' "$root/bin/busybox"
# names of the applets as links, in the directories that busybox itself names for them
"$root/bin/busybox" --list-full | while read -r applet; do
    dir=${applet%/*}
    up=$(echo "$dir" | sed 's,[^/][^/]*,..,g')
    [ "$applet" = bin/busybox ] || [ -e "$root/$applet" ] || ln -s "$up/bin/busybox" "$root/$applet"
done
install -m 755 "$dropbear" "$root/usr/sbin/dropbear"
install -m 755 "$here/rc" "$root/etc/rc"
install -m 755 "$here/rc.sshd" "$root/etc/rc.sshd"
install -m 644 "$here/inittab" "$root/etc/inittab"
install -m 644 "$here/profile" "$root/etc/profile"
# ash reads it in shells that are no login shells, as those of ssh and of image shells
ln -s profile "$root/etc/shinit"
echo 'root::0:0:root:/root:/bin/sh' >"$root/etc/passwd"
printf 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n' >"$root/etc/group"
echo 'nobody:x:65534:65534:nobody:/:/bin/false' >>"$root/etc/passwd"
# no password: keys only (dropbear -s), and a root shell on the console is open anyway
printf 'root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n' >"$root/etc/shadow"
chmod 640 "$root/etc/shadow"
sed -i 's/^root::/root:x:/' "$root/etc/passwd"
echo /bin/sh >"$root/etc/shells"
printf 'NAME="WalT mini"\nID=walt-mini\nPRETTY_NAME="WalT mini (busybox, dropbear)"\n' >"$root/etc/os-release"

install_boot "$root"
cp "$work/kernel/boot/vmlinuz-$release" "$root/boot/pc-x86-64/kernel"
chmod 644 "$root/boot/pc-x86-64/kernel"
mkdir -p "$work/kernel/bin"
cp "$work/busybox/bin/busybox" "$work/kernel/bin/"
sh "$WALT_IMAGES_DIR/common/initrd/walt-mkinitrd" -r "$work/kernel" "$release" \
    "$root/boot/pc-x86-64/initrd"
install_modules

mkdir -p "$outdir"
pack "$root" "$outdir/rootfs.tar"
install -m 644 "$here/config.json" "$outdir/config.json"
say "$recipe: done"
