# shellcheck shell=sh disable=SC2154
# Debian with systemd, for all families of machines; sourced by their recipes after lib.sh, POSIX sh.
#
#   arch     Debian's name of the CPU family
#   models   lines 'MODEL [DTB]': models of nodes, with their device tree below /usr/lib/linux-image-RELEASE
#   dpkg_more  a file with more settings of dpkg, or nothing
#   recipe, here, root, work, outdir   as in the recipes
#
# A node boots it from the network at every start, and a virtual one on an emulated CPU: what
# is started at boot weighs more than anything else. Each unit that runs has its reason below.

# The initrd as a package: it stands for initramfs-tools, which the kernel would bring otherwise
# and which would build, at each update, an initrd that nobody boots.
build_initrd_package() {
    pkg=$work/walt-initrd
    mkdir -p "$pkg/DEBIAN" "$pkg/usr/sbin" "$pkg/usr/share/walt-initrd" \
        "$pkg/etc/kernel/postinst.d" "$pkg/etc/kernel/postrm.d" "$work/repo"
    from=$WALT_IMAGES_DIR/common/initrd
    install -m 755 "$from/walt-mkinitrd" "$pkg/usr/sbin/walt-mkinitrd"
    install -m 755 "$from/walt-initrd-init" \
        "$pkg/usr/share/walt-initrd/walt-initrd-init"
    install -m 755 "$from/kernel/postinst" "$pkg/etc/kernel/postinst.d/zz-walt-initrd"
    install -m 755 "$from/kernel/postrm" "$pkg/etc/kernel/postrm.d/zz-walt-initrd"
    install -m 755 "$from/kernel/walt-boot-links" "$pkg/usr/share/walt-initrd/walt-boot-links"
    echo "$models" >"$pkg/usr/share/walt-initrd/models"
    cat >"$pkg/DEBIAN/control" <<END
Package: walt-initrd
Version: 1
Architecture: all
Maintainer: WalT <root@localhost>
Section: kernel
Priority: optional
Depends: busybox-static, kmod
Provides: linux-initramfs-tool
Description: initrd for nodes that boot over NFS, rebuilt at each kernel update
END
    deb=$work/repo/walt-initrd.deb
    dpkg-deb --root-owner-group -Zgzip -b "$pkg" "$deb" >&2
    {
        cat "$pkg/DEBIAN/control"
        echo "Filename: ./walt-initrd.deb"
        echo "Size: $(stat -c %s "$deb")"
        echo "SHA256: $(sha256sum "$deb" | cut -d' ' -f1)"
    } >"$work/repo/Packages"
}

# mask UNIT...: systemd never starts it, and no update of a package enables it again.
mask() {
    for unit; do ln -sfn /dev/null "$root/etc/systemd/system/$unit"; done
}

# dropin UNIT SECTION LINE...: a part that is added to a unit.
dropin() {
    mkdir -p "$root/etc/systemd/system/$1.d"
    file=$root/etc/systemd/system/$1.d/walt.conf
    echo "[$2]" >"$file"
    shift 2
    printf '%s\n' "$@" >>"$file"
}

configure_units() {
    # What runs, and why (everything else of the packages is masked or conditional):
    #   systemd-journald      logs of all services; in memory only, see journald.conf.d/walt.conf
    #   systemd-udevd         drivers of the machine's cards, names of disks
    #   systemd-udev-trigger  the cards that are there at boot, on real machines
    #   walt-udev-trigger     the same on virtual machines, for the few buses they have
    #   systemd-tmpfiles-setup  directories in /run and /tmp that packages rely on
    #   systemd-sysctl, systemd-modules-load  what users put in /etc/sysctl.d, /etc/modules
    #   systemd-logind, dbus  sessions, `systemctl` of users, reboot by the power button
    #   cron                  jobs of users
    #   ssh                   the way into a node
    #   lldpd                 where a node is plugged; not in containers, and after ssh
    #   serial-getty@ttyS0    `walt node console`; getty@tty1 on real machines only
    #   systemd-user-sessions lets users log in at all

    # The upper layer is RAM, so nothing of this would outlive the boot it was written in.
    mask systemd-random-seed.service systemd-machine-id-commit.service \
        systemd-journal-flush.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
        systemd-pstore.service systemd-rfkill.service systemd-rfkill.socket systemd-backlight@.service
    # Packages keep these up to date when they are installed; /usr does not change on a node.
    mask systemd-hwdb-update.service systemd-journal-catalog-update.service \
        systemd-update-done.service ldconfig.service systemd-sysusers.service systemd-firstboot.service
    # The root is a union over NFS: nothing to check, to remount, to trim, to resume from.
    mask systemd-remount-fs.service systemd-fsck-root.service fstrim.timer fstrim.service \
        e2scrub_all.timer e2scrub_reap.service systemd-hibernate-resume@.service systemd-quotacheck.service
    # Housekeeping of long-lived machines. It would also run in image shells, and be saved.
    mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer man-db.timer \
        systemd-tmpfiles-clean.timer logrotate.timer
    # The network is configured by the initrd; nothing must touch the card that the root is on.
    mask systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service \
        systemd-network-generator.service
    # One process each at boot. Users of these file systems mount them: `mount -t tracefs ...`
    mask sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
        dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount \
        modprobe@drm.service modprobe@configfs.service modprobe@efi_pstore.service \
        modprobe@fuse.service modprobe@loop.service modprobe@dm_mod.service systemd-repart.service
    # Two processes for the nodes /dev/net/tun, /dev/fuse and the like, see configure_dev.
    mask kmod-static-nodes.service systemd-tmpfiles-setup-dev.service
    # A systemd per logged-in user costs each `walt node run` more than its command; root uses the
    # system's. (`systemctl unmask user@.service` brings it back.)
    mask user@.service
    # An image shell's console is its user's shell.
    mask console-getty.service
    # No local disk is used, encrypted or verified unless the user says so in /etc/fstab.
    mkdir -p "$root/etc/systemd/system-generators"
    for generator in systemd-gpt-auto-generator systemd-hibernate-resume-generator \
        systemd-cryptsetup-generator systemd-veritysetup-generator systemd-integritysetup-generator \
        systemd-system-update-generator systemd-run-generator systemd-bless-boot-generator; do
        ln -sfn /dev/null "$root/etc/systemd/system-generators/$generator"
    done

    dropin lldpd.service Unit After=ssh.service ConditionVirtualization=!container
    dropin getty@.service Unit ConditionVirtualization=!vm ConditionVirtualization=!container
    dropin serial-getty@.service Unit After=ssh.service
    # the configuration is checked by the daemon itself as well; as a service of its own this is
    # a fifth of a second
    dropin ssh.service Service ExecStartPre=
    # Most of the some 300 devices of a virtual machine are parts of its platform, terminals and
    # memory, for which no rule does anything.
    dropin systemd-udev-trigger.service Unit ConditionVirtualization=!vm
    cat >"$root/etc/systemd/system/walt-udev-trigger.service" <<'END'
[Unit]
Description=Coldplug of the devices of a virtual machine
DefaultDependencies=no
Wants=systemd-udevd.service
After=systemd-udevd-kernel.socket systemd-udevd-control.socket
ConditionVirtualization=vm
ConditionPathIsReadWrite=/sys

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=udevadm trigger --action=add --subsystem-match=pci --subsystem-match=virtio --subsystem-match=net --subsystem-match=block --subsystem-match=scsi --subsystem-match=usb --subsystem-match=nvme
ExecStart=udevadm trigger --action=add --sysname-match=ttyS0 --sysname-match=hvc0

[Install]
WantedBy=sysinit.target
END
    mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
    ln -sfn ../walt-udev-trigger.service \
        "$root/etc/systemd/system/sysinit.target.wants/walt-udev-trigger.service"

    mkdir -p "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system.conf.d" \
        "$root/etc/systemd/network" "$root/etc/sysctl.d"
    # on disk it would be in RAM twice on a node, and saved with an image
    printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\n' >"$root/etc/systemd/journald.conf.d/walt.conf"
    # an image shell that ends waits no longer than this for a service that does not stop
    printf '[Manager]\nDefaultTimeoutStopSec=15s\n' >"$root/etc/systemd/system.conf.d/walt.conf"
    # users ping without privilege, also with programs that have no file capability
    echo 'net.ipv4.ping_group_range = 0 2147483647' >"$root/etc/sysctl.d/walt-ping.conf"
    # cards keep the kernel's names: the one that the root is on is up already
    ln -sfn /dev/null "$root/etc/systemd/network/99-default.link"
}

# Device nodes that load their module when they are opened, made by the same process as /run's
# directories. In containers the runtime gives /dev.
configure_dev() {
    dropin systemd-tmpfiles-setup.service Service ExecStart= \
        'ExecStart=systemd-tmpfiles --create --remove --boot'
    cat >"$root/etc/tmpfiles.d/walt-dev.conf" <<'END'
d /dev/net 0755 root root -
c!- /dev/net/tun       0666 root root - 10:200
c!- /dev/fuse          0666 root root - 10:229
c!- /dev/loop-control  0660 root disk - 10:237
END
}

configure_system() {
    # nothing of the machine that built the image, and no identity: each node makes its own
    rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
    : >"$root/etc/machine-id"
    : >"$root/etc/resolv.conf"
    printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
    # the platform's host key is the only one
    echo 'HostKey /etc/ssh/ssh_host_ecdsa_key' >"$root/etc/ssh/sshd_config.d/walt.conf"
    # the console is that of a testbed's machine: root, no password. ssh takes keys only for root.
    sed -i 's/^root:[^:]*:/root::/' "$root/etc/shadow"
    echo LANG=C.UTF-8 >"$root/etc/default/locale"
    # no banners at login, which a script would have to read past
    rm -f "$root/etc/update-motd.d/10-uname"
    : >"$root/etc/motd"
    echo 'do_symlinks = no' >"$root/etc/kernel-img.conf"

    echo "$sources" | sed 's/^/deb /' >"$root/etc/apt/sources.list"
    # mmdebstrap's copy of the build's list names the small repository, which is gone by now
    rm -f "$root"/etc/apt/sources.list.d/*all.list
    rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
    {
        echo '// No translated descriptions of packages.'
        echo 'Acquire::Languages "none";'
        apt_settings
    } >"$root/etc/apt/apt.conf.d/90walt"
    install -m 644 "$work/dpkg.cfg" "$root/etc/dpkg/dpkg.cfg.d/walt"

    install -m 755 "$debian/walt-image-shell-start" "$debian/walt-image-shell-shutdown" "$root/usr/bin/"
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/*.log \
        "$root"/var/log/apt/* "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
}

# packages FILE...: the names in lists with comments, separated by commas.
packages() { sed 's/ *#.*//' "$@" | grep . | paste -sd,; }

# debian_rootfs: makes $root, without boot files of the machines besides kernel and initrd.
debian_rootfs() {
    debian=$WALT_IMAGES_DIR/common/debian
    build_initrd_package
    write_sources "$work/sources.list"
    cp "$work/sources.list" "$work/all.list"
    echo "deb [trusted=yes] copy:$work/repo ./" >>"$work/all.list"
    packages=$(packages "$debian/packages" "$here/packages")
    cat "$debian/dpkg.cfg" ${dpkg_more:+"$dpkg_more"} >"$work/dpkg.cfg"
    apt_settings >"$work/apt.conf"
    echo 'Acquire::Languages "none";' >>"$work/apt.conf"

    say "installing Debian $SUITE for $arch and: $packages"
    # That programs of a foreign CPU run was seen to before, see lib.sh.
    mmdebstrap --mode=root --variant=minbase --architectures="$arch" --skip=check/qemu \
        --include="$packages" --dpkgopt="$work/dpkg.cfg" --dpkgopt=force-unsafe-io \
        --aptopt="$work/apt.conf" "$SUITE" "$root" "$work/all.list" >&2
    configure_system
    configure_units
    configure_dev
}

# debian_done: checks that nodes find what they boot, and writes the results.
debian_done() {
    echo "$models" | while read -r model dtb; do
        for file in kernel initrd ${dtb:+dtb}; do
            [ -s "$root/boot/$model/$file" ] || die "the image has no /boot/$model/$file"
        done
    done
    mkdir -p "$outdir"
    pack "$root" "$outdir/rootfs.tar"
    install -m 644 "$here/config.json" "$outdir/config.json"
    say "$recipe: done"
}
