# hybrid-boot.sh ROOT SCRIPTS MODE BLOCK THEN: what a node does between its RAM root and its union, in mount and network
# namespaces of its own. ROOT is an empty directory, SCRIPTS is node/, BLOCK are lines "<name> <major>:<minor> <sectors>",
# THEN is a script that is run afterwards, on the RAM root.
set -eu
root=$1 scripts=$2 mode=$3 block=$4 then=$5
mount -t tmpfs ram "$root"
cd "$root"
mkdir -p bin/_walt_internal_ dev proc tmp etc link run sys/class/block sys/block mnt/nfsroot mnt/union
cp "$(command -v busybox)" bin/busybox
cp "$scripts"/walt-* bin/_walt_internal_/
cat >etc/walt-node
echo "$block" | while read -r name number sectors; do
    [ -n "$name" ] || continue
    mkdir -p "sys/class/block/$name"
    echo "$number" >"sys/class/block/$name/dev"
    case $name in *[0-9]) continue ;; esac
    mkdir -p "sys/block/$name"
    echo 0 >"sys/block/$name/removable"
    echo 0 >"sys/block/$name/ro"
    echo "$sectors" >"sys/block/$name/size"
done
# the programs of the image
mount -o bind / mnt/nfsroot
mknod dev/null c 1 3
mknod dev/zero c 1 5
mount -t proc proc proc
chroot . /bin/busybox --install -s /bin
run() { chroot . /bin/busybox env -i PATH=/bin /bin/sh "$@" </dev/null 2>&1; }
run /bin/_walt_internal_/walt-boot-modes "$mode" || true
if [ -f etc/walt-boot-mode ]; then echo "mode: $(cat etc/walt-boot-mode)"; else echo "mode: network"; fi
run -c "$then"
# the end of the node: what it has started may last a little longer than this script
cd /
for at in mnt/union/local mnt/union mnt/attributed mnt/hybrid; do
    ! grep -q " $root/$at " /proc/self/mounts || umount "$root/$at"
done
