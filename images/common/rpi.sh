# shellcheck shell=sh disable=SC2154,SC2016
# Debian images for Raspberry Pis; sourced by their recipes after debian.sh, POSIX sh.
#
# The firmware of these boards fetches the files of /boot/<model>/ by TFTP, and boots the kernel as config.txt and
# cmdline.txt say; there is no boot loader between. The firmware's own files (start4.elf and so on) are of Debian's
# package raspi-firmware, in the section non-free-firmware: where this machine's apt does not use that section, they
# are left out, and the boards boot only if they get them from elsewhere (the SD card).
#
# A board that starts U-Boot, from its SD card, runs start.uboot. The 64-bit image is also for machines with UEFI (model
# uefi-arm64): their firmware starts start.efi, which is GRUB.

# Files of the firmware that boards fetch.
RPI_FIRMWARE="bootcode.bin start.elf fixup.dat start4.elf fixup4.dat"

# install_firmware: into each model's directory, if apt has them.
install_firmware() {
    apt_private_setup
    if ! apt_private download --print-uris raspi-firmware >"$work/uris" 2>/dev/null || [ ! -s "$work/uris" ]; then
        say "$recipe: WITHOUT the firmware of the boards: apt on this machine has no package raspi-firmware" \
            "(section non-free-firmware). Boards need it on their SD card."
        return 0
    fi
    debs "$work/firmware" raspi-firmware
    mkdir -p "$root/boot/rpi-firmware"
    for file in $RPI_FIRMWARE; do
        install -m 644 "$work/firmware/usr/lib/raspi-firmware/$file" "$root/boot/rpi-firmware/$file"
        echo "$models" | grep '^rpi-' | while read -r model _; do
            ln -sfn "../rpi-firmware/$file" "$root/boot/$model/$file"
        done
    done
}

# Mount options of the root, as PCs have them: the words after ro.
nfs_options() { sed -n 's/^set nfs_opts //p' "$WALT_IMAGES_DIR/common/boot/pc-x86-64/start-generic.ipxe"; }

# The files of boards with the Raspberry Pi's firmware, and the script for those with U-Boot, on the board's SD card.
install_rpi_boot() {
    mkdir -p "$root/etc/walt"
    case $arch in
        arm64) bit64=1 boot=booti ;;
        *) bit64=0 boot=bootz ;;
    esac
    echo "$models" | grep '^rpi-' | while read -r model _; do
        sed "s/%bit64%/$bit64/" "$WALT_IMAGES_DIR/common/boot/rpi/config.txt" >"$root/boot/$model/config.txt"
        # the firmware takes one line
        sed -e '/^#/d' -e "s/%model%/$model/" "$WALT_IMAGES_DIR/common/boot/rpi/cmdline.txt" |
            paste -sd' ' >"$root/boot/$model/cmdline.txt"
        sed -e "s/%model%/$model/g" -e "s/%boot%/$boot/" -e "s/%options%/$(nfs_options)/" \
            "$WALT_IMAGES_DIR/common/boot/uboot/start.txt" >"$root/boot/$model/start.txt"
        perl "$WALT_IMAGES_DIR/common/uboot-script" "WalT $model" \
            <"$root/boot/$model/start.txt" >"$root/boot/$model/start.uboot"
    done
}

# install_uefi_boot: GRUB, as Debian builds it for network boot, and what it does.
install_uefi_boot() {
    apt_private_setup
    debs "$work/grub" grub-efi-arm64-bin
    uefi=$root/boot/uefi-arm64
    mkdir -p "$uefi/grub"
    install -m 644 "$work/grub/usr/lib/grub/arm64-efi/monolithic/grubnetaa64.efi" "$uefi/start.efi"
    sed "s/%options%/$(nfs_options)/" "$WALT_IMAGES_DIR/common/boot/uefi-arm64/grub.cfg" >"$uefi/grub/grub.cfg"
}

# check_first_files: what machines load first is in the image.
check_first_files() {
    echo "$models" | while read -r model _; do
        case $model in
            uefi-*) first='start.efi grub/grub.cfg' ;;
            *) first='start.uboot config.txt cmdline.txt' ;;
        esac
        for file in $first; do
            [ -s "$root/boot/$model/$file" ] || die "the image has no /boot/$model/$file"
        done
    done
}

rpi_image() {
    need apt-get=apt dpkg-deb=dpkg mmdebstrap=mmdebstrap perl=perl-base tar=tar
    umask 022
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/walt-recipe.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # apt's unprivileged user reads a small repository there
    chmod 755 "$work"
    root=$work/rootfs
    dpkg_more=$WALT_IMAGES_DIR/common/debian/dpkg-rpi.cfg
    debian_rootfs
    install_rpi_boot
    install_firmware
    case $models in *uefi-arm64*) install_uefi_boot ;; esac
    check_first_files
    debian_done
}
