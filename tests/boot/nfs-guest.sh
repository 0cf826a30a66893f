#!/bin/busybox sh
# The guest of nfs.rs: mounts a view and /persist with the kernel's NFS client and tries what nodes do.
# Each failed check is a line that starts with FAIL. `stat` and others are busybox applets.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs t /tmp
echo 'root:x:0:0::/:/bin/sh
u1:x:1001:1001::/:/bin/sh' > /etc/passwd
echo 'root:x:0:
u1:x:1001:' > /etc/group
for m in /lib/modules/*.ko; do insmod $m || echo insmod $m; done
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
O=vers=3,proto=tcp,nolock,port=$NFS_PORT,mountport=$NFS_PORT,mountproto=tcp,addr=10.0.2.2
until mount -i -t nfs -o ro,$O,nocto,acregmin=157680000,acregmax=157680000,acdirmin=157680000,acdirmax=157680000 10.0.2.2:/var/lib/walt/nodes/n1/fs /mnt/fs; do sleep 1; done
mount -i -t nfs -o rw,$O 10.0.2.2:/var/lib/walt/nodes/n1/persist /mnt/p || echo FAIL mount persist
# ck NAME CONDITION
N=0; B=0
ck() { if eval "$2"; then N=$((N+1)); else B=$((B+1)); echo "FAIL $1: $2"; fi; }
cd /mnt/fs
ck read '[ "$(cat etc/hello)" = hello ]'
ck link '[ "$(cat sub/link)" = hello ]'
ck hard '[ $(stat -c %i etc/hello) = $(stat -c %i sub/deep/hard) ]'
ck big '[ "$(md5sum < big | cut -d" " -f1)" = "$(cat big.md5)" ]'
ck many '[ $(ls many | wc -l) = 5000 ]'
ck manyl '[ $(ls -l many | wc -l) = 5001 ]'
ck viewid '[ $(readlink .walt-view) = $(printf "ab%.0s" $(seq 32)) ]'
ck hidden '! ls -a | grep -q walt-view'
ck rofs '! touch x 2>/dev/null'
ck null '[ -c sub/null ] && [ -p sub/fifo ]'
ck priv '[ "$(cat priv/secret)" = s ] && ! su u1 -c "cat /mnt/fs/priv/secret" 2>/dev/null'
ck gone '! stat .walt-probe-1 2>/dev/null'
mkdir /tmp/u /tmp/w /tmp/m; ck ovl 'mount -t overlay -o lowerdir=/mnt/fs,upperdir=/tmp/u,workdir=/tmp/w ov /tmp/m && [ "$(cat /tmp/m/etc/hello)" = hello ] && echo x > /tmp/m/etc/hello && mv /tmp/m/sub/deep/hard /tmp/m/h2 && [ $(ls /tmp/m/many | wc -l) = 5000 ]'
cd /mnt/p
ck create 'echo one > a && [ "$(cat a)" = one ]'
ck append 'echo two >> a && [ $(wc -l < a) = 2 ]'
ck rename 'mv a b && [ ! -e a ] && [ $(wc -l < b) = 2 ]'
ck link 'ln b c && [ $(stat -c %h b) = 2 ] && [ $(stat -c %i b) = $(stat -c %i c) ]'
ck symlink 'ln -s b l && [ "$(readlink l)" = b ]'
ck mknod 'mknod n c 1 3 && mkfifo f && [ -c n ] && [ -p f ] && [ "$(stat -c %t:%T n)" = 1:3 ]'
ck modes 'umask 0; mkdir -m 1777 t; umask 022; [ $(stat -c %a t) = 1777 ]'
ck user 'su u1 -c "echo mine > t/u; mkdir -p t/d/e; ln -s x t/ul" && [ "$(stat -c %u:%g:%a t/u)" = 1001:1001:644 ] && [ "$(stat -c %u t/d/e)" = 1001 ] && [ "$(stat -c %u t/ul)" = 1001 ]'
ck denied 'echo r > root; chmod 600 root; ! su u1 -c "cat /mnt/p/root" 2>/dev/null; ! su u1 -c "echo x > /mnt/p/new" 2>/dev/null && ! su u1 -c "rm -f /mnt/p/b" 2>/dev/null && ! su u1 -c "chown u1 /mnt/p/b" 2>/dev/null'
ck chown 'chown 1001:1001 root && [ "$(su u1 -c "cat /mnt/p/root")" = r ]'
ck trunc 'dd if=/dev/zero of=z bs=1M count=5 2>/dev/null; truncate -s 100 z; [ $(stat -c %s z) = 100 ]'
ck times 'touch -d "2020-01-02 03:04:05" z && [ $(stat -c %Y z) = 1577934245 ]'
ck fsync 'dd if=/mnt/fs/big of=big conv=fsync bs=1M 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches; [ "$(md5sum < big | cut -d" " -f1)" = "$(cat /mnt/fs/big.md5)" ]'
ck sync 'dd if=/mnt/fs/big of=osync oflag=direct bs=1M count=4 2>/dev/null; [ $(stat -c %s osync) = 4194304 ]'
ck silly 'exec 5<>s; echo data >&5; rm s; ls -a | grep -q nfs; echo more >&5; exec 5>&-; ! ls -a | grep -q "\.nfs"'
ck over 'echo 1 > o1; echo 2 > o2; mv o1 o2; [ "$(cat o2)" = 1 ]'
ck dirs 'mkdir -p x/y/z && mv x/y w && [ -d w/z ] && rmdir w/z && rmdir w && rmdir x'
ck notempty 'mkdir q; touch q/1; ! rmdir q 2>/dev/null; rm -r q'
ck excl 'set -C; echo x > ex; ! echo y > ex; set +C; [ "$(cat ex)" = x ]' 2>/dev/null
ck bigdir 'mkdir bd; i=0; while [ $i -lt 400 ]; do : > bd/file-number-$i; i=$((i+1)); done; [ $(ls bd | wc -l) = 400 ] && rm -r bd && [ ! -e bd ]'
ck df 'df /mnt/p >/dev/null'
ck dotdot '[ $(stat -c %i .) = $(stat -c %i t/..) ]'
# the disk of the server loses what this file has at its first COMMIT
ck lost 'dd if=/mnt/fs/big of=lost bs=1M count=8 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches; [ "$(md5sum < lost)" = "$(dd if=/mnt/fs/big bs=1M count=8 2>/dev/null | md5sum)" ]'
echo "RESULT basic good=$N bad=$B"
# each of the next ends the server once, before or after its result was recorded
echo PHASE2
# until the server with the first fail point has taken the place of this one
until [ -e /mnt/p/phase2 ]; do sleep 1; done
N=0; B=0
ck mkdir1 'mkdir m1'; ck mkdir2 'mkdir m2'
ck sym1 'ln -s x y1'; ck sym2 'ln -s x y2'
ck mk1 'mkfifo p1'; ck mk2 'mkfifo p2'
ck ln1 'ln b k1'; ck ln2 'ln b k2'
ck mv1 'mv k1 k1n'; ck mv2 'mv k2 k2n'
ck rm1 'rm k1n'; ck rm2 'rm k2n'
ck rd1 'rmdir m1'; ck rd2 'rmdir m2'
ck cr1 ': > c1'; ck cr2 ': > c2'
ck ch1 'chmod 600 c1'; ck ch2 'chmod 600 c2'
ck ex1 'set -C; : > e1; set +C'; ck ex2 'set -C; : > e2; set +C'
ck end '[ ! -e m1 ] && [ ! -e k1n ] && [ -p p1 ] && [ -L y1 ] && [ "$(stat -c %a%a c1 c2)" = "600600
600600" ] && [ $(stat -c %h b) = 2 ]'
echo "RESULT crash good=$N bad=$B"
# The procedures that may run twice: each round calls all of them on both mounts, so that each ends the server
# at least once. A mount may find no server for a moment and is tried again, as walt-init does.
mkdir /tmp/again
again() { until mount -i -t nfs -o $1,$O,nosharecache 10.0.2.2:/var/lib/walt/nodes/n1/$2 /tmp/again; do sleep 1; done; }
round() {
    mkdir r$1 && dd if=/mnt/fs/big of=r$1/data bs=1M count=3 2>/dev/null && ln -s target-$1 r$1/link || return
    again rw,nordirplus persist
    [ "$(ls /tmp/again/r$1)" = "data
link" ] && umount /tmp/again || return
    echo 3 > /proc/sys/vm/drop_caches
    [ "$(readlink r$1/link)" = target-$1 ] && [ "$(md5sum < r$1/data)" = "$SUM" ] && [ $(ls -l r$1 | wc -l) = 3 ] || return
    [ "$(su u1 -c "md5sum < /mnt/p/r$1/data")" = "$SUM" ] && df /mnt/p >/dev/null || return
    again ro,nocto fs
    [ "$(cat /tmp/again/etc/hello)" = hello ] && [ "$(cat /tmp/again/sub/link)" = hello ] &&
        [ $(ls -l /tmp/again/many | wc -l) = 5001 ] && df /tmp/again >/dev/null && umount /tmp/again
}
# More than one WRITE, which the client does not ask to be stable, so that there is a COMMIT.
SUM=$(dd if=/mnt/fs/big bs=1M count=3 2>/dev/null | md5sum)
N=0; B=0
for r in 01 02 03 04 05 06 07 08 09 10 11 12; do ck round$r "round $r"; done
ck rounds '[ $(ls -d r?? | wc -l) = 12 ]'
echo "RESULT rounds good=$N bad=$B"
echo ALLDONE
poweroff -f
