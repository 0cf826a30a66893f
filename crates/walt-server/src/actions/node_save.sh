# Runs on a node: what changed in its RAM since it booted, or on its disk, for `walt node save`. POSIX sh, busybox of the RAM root.
#   directories of the upper layer, NUL after each; NUL
#   ./dir/. for each of them that could be listed, and ./dir/./name for all that shows in it, NUL after each; NUL
#   a tar of the upper layer, and of the local directory of a disk
set -e
ram=/run/walt/rootfs
b=$ram/bin/busybox
upper=$ram/mnt/fs_rw
local=
boot_mode=network
# shellcheck disable=SC1091,SC2154
[ ! -f $ram/etc/walt-node ] || . $ram/etc/walt-node
case $boot_mode in
    hybrid-*)
        # shellcheck disable=SC2154
        upper=$ram/mnt/hybrid/walt_hybrid/$image/diff
        local=$ram/mnt/hybrid/walt_hybrid/$image/local
        ;;
esac
if [ ! -d "$upper" ] || [ ! -x $b ]; then
    echo "this node keeps no changes that could be saved" >&2
    exit 3
fi
# The tree without what is mounted on it: a mount hides names, it does not delete them.
merged=$ram/tmp/walt-save.$$
$b mkdir -p $merged
bound=
# A shell that a signal kills does not run the trap of its end: whoever reads this may go while the shell itself writes.
trap 'exit 1' HUP INT PIPE TERM
trap '[ -z "$bound" ] || $b umount "$bound"; $b umount $merged; $b rmdir $merged' EXIT
$b mount -o bind / $merged
# /local bypasses the union: it is read as if it were part of it. A change of its mode brings it into the upper layer.
if [ -n "$local" ] && $b grep -q ' /local ' /proc/mounts && [ -n "$($b ls -A "$local")" ]; then
    $b chmod "$($b stat -c %a $merged/local)" $merged/local
    $b mount -o bind "$local" "$upper/local"
    bound=$upper/local
fi
cd "$upper"
$b find . -type d -print0
printf '\000'
# A directory that goes meanwhile has no "/." of its own, and nothing is concluded from it.
# shellcheck disable=SC2016
$b find . -type d -print0 | (
    cd $merged
    $b xargs -0 $b sh -c '
        for dir; do
            set -- "$@" "$dir/."
            shift
        done
        exec "$0" find "$@" -maxdepth 1 -print0' $b 2>/dev/null || true
)
printf '\000'
# Run-time state that no image keeps is not even sent; the table of what a save leaves out has the rest.
set --
for name in ./* ./.[!.]* ./..?*; do
    [ -e "$name" ] || [ -L "$name" ] || continue
    case $name in
        ./run | ./tmp | ./proc | ./sys | ./dev | ./persist) continue ;;
    esac
    set -- "$@" "$name"
done
status=0
if [ $# = 0 ]; then
    $b head -c 1024 /dev/zero
else
    case $(tar --version 2>/dev/null) in
        *GNU*)
            tar --format=posix --sparse --xattrs '--xattrs-include=*' --numeric-owner -c -f - -- "$@" || status=$?
            ;;
        *) $b tar -c -f - "$@" || status=$? ;;
    esac
fi
# 1: sockets, files that changed while they were read. The reader sees whether the tar is whole.
[ $status = 1 ] && status=0
exit $status
