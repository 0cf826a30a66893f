# shellcheck shell=sh disable=SC2154,SC2016,SC2001
# Functions shared by the recipes; sourced by them, POSIX sh.
#
# A recipe is run as root:   recipe.sh OUTDIR
#   WALT_IMAGES_DIR  this directory's parent, as unpacked by whoever runs it
#   WALT_CACHE       a directory that may keep downloads between two runs
# and leaves OUTDIR/rootfs.tar and OUTDIR/config.json. Progress goes to stderr. A recipe whose
# config.json names another CPU family than this machine's needs a handler for it in the kernel:
# 'walt-server default-image build' sees to that.

SUITE=bookworm
# Debian's name of the image's CPU family, unless the recipe has named another one.
: "${arch:=amd64}"

say() { echo "$*" >&2; }
die() { say "$recipe: $*"; exit 1; }

# need PROGRAM=PACKAGE ...: stop early, with the name of what to install.
need() {
    missing=
    for n; do
        command -v "${n%%=*}" >/dev/null 2>&1 || missing="$missing ${n#*=}"
    done
    [ -z "$missing" ] || die "missing programs; install:$missing"
}

# Everything the recipes need to know about where packages come from is what this
# machine's own apt uses: the Debian sources of $SUITE, one "URI RELEASE COMPONENT" a line. A
# machine with another release of Debian has them at the same places, by the other name.
debian_sources() {
    found=$(sources_of "$SUITE")
    if [ -z "$found" ]; then
        own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
        [ -z "$own" ] || found=$(sources_of "$own" | sed "s| $own\([- ]\)| $SUITE\1|")
    fi
    [ -z "$found" ] || echo "$found"
}
sources_of() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk -v s="$1" '($2 == s || index($2, s "-") == 1) && $4 == "Debian" && $2 !~ /backports|proposed/ {
            print $1, $2, $3 }' | sort -u
}

# write_sources FILE: a sources.list from them; indices are fetched once if apt has none yet.
write_sources() {
    sources=$(debian_sources)
    if [ -z "$sources" ]; then
        say "no package indices of Debian $SUITE yet: running apt-get update"
        apt-get update >&2
        sources=$(debian_sources)
    fi
    [ -n "$sources" ] || die "apt on this machine has no source for Debian $SUITE; add one to /etc/apt/sources.list"
    echo "$sources" | sed 's/^/deb /' >"$1"
}

# The settings of this machine's apt without which its sources might not be usable.
apt_settings() {
    apt-config dump |
        grep -E '^Acquire::(Check-Valid-Until|Check-Date|http::Proxy|https::Proxy) ' || true
}

# apt_private COMMAND...: apt-get with its own empty system, so that what this machine
# has installed, pinned or added as sources does not matter.
apt_private() {
    apt-get -q -o "Dir::Etc::SourceList=$apt_dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o "Dir::State=$apt_dir/state" -o "Dir::Cache=$apt_dir/cache" \
        -o "Dir::State::status=$apt_dir/status" -o "APT::Architecture=$arch" \
        -o "APT::Architectures=$arch" \
        -o APT::Sandbox::User=root \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Languages=none "$@"
}

apt_private_setup() {
    apt_dir=$WALT_CACHE/apt
    mkdir -p "$apt_dir/state/lists/partial" "$apt_dir/cache/archives/partial"
    : >"$apt_dir/status"
    write_sources "$apt_dir/sources.list"
    sed -n 's/^deb /deb-src /p' "$apt_dir/sources.list" >"$apt_dir/src"
    cat "$apt_dir/src" >>"$apt_dir/sources.list"
    say "reading package indices"
    apt_private update >&2
}

# debs DIR PACKAGE...: the packages (without their dependencies), unpacked over each other in DIR.
debs() {
    to=$1
    shift
    for p; do
        file=$WALT_CACHE/debs/$(apt_private download --print-uris "$p" | awk 'END { print $2 }')
        if [ ! -s "$file" ]; then
            say "fetching $p"
            mkdir -p "$WALT_CACHE/debs"
            (cd "$WALT_CACHE/debs" && apt_private download "$p" >&2)
        fi
        [ -s "$file" ] || die "package $p was not downloaded to $file"
        dpkg-deb -x "$file" "$to"
    done
}

# Name of the package that linux-image-amd64 stands for now.
kernel_package() {
    apt_private --no-install-recommends -s install linux-image-amd64 2>/dev/null |
        awk '$1 == "Inst" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }'
}

# install_boot ROOTFS: the boot files of a PC; kernel and initrd are up to the recipe.
install_boot() {
    mkdir -p "$1/boot" "$1/etc/walt"
    cp -R "$WALT_IMAGES_DIR/common/boot/pc-x86-64" "$1/boot/"
    vm="$1/boot/pc-x86-64/QEMU/Standard PC (i440FX + PIIX, 1996)"
    mkdir -p "$vm"
    cp "$WALT_IMAGES_DIR/common/boot/qemu-boot-params.ipxe" "$vm/boot-params.ipxe"
    cp "$WALT_IMAGES_DIR/common/image.spec" "$1/etc/walt/image.spec"
    find "$1/boot/pc-x86-64" -type d -exec chmod 755 {} +
    find "$1/boot/pc-x86-64" -type f -exec chmod 644 {} +
    chmod 644 "$1/etc/walt/image.spec"
}

# pack ROOTFS TAR: numeric owners, extended attributes (file capabilities), stable order.
pack() {
    say "packing $(du -sh "$1" | cut -f1) to ${2##*/}"
    tar -C "$1" --format=pax --pax-option=delete=atime,delete=ctime --numeric-owner \
        --xattrs --xattrs-include='*' --sort=name -cf "$2.part" .
    mv "$2.part" "$2"
}
