"""A guest whose kernel is the NFS client of two servers, for the part 'nfs' of scripts/bench.

The guest is the kernel of an image in qemu, with a RAM disk of busybox, modules and bench_guest.c. It reaches this
network's loopback as 10.0.2.2 (qemu's own address translation), and says on its console what it has measured.
"""

import os
import subprocess

from bench_common import LIMIT, give_up, run

MODULES = ("virtio_pci", "virtio_net", "nfsv3")
# 64 reads of 1 MB, 1,000 reads of 4 kB, 2,000 files looked up, 50 files made.
WORK = (("read", 64), ("scattered", 1000), ("stat", 2000), ("create", 50))

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
ip link set lo up; ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
attach() {
    tries=0
    until mount -i -t nfs -o vers=3,proto=tcp,mountproto=tcp,nolock,addr=10.0.2.2,port=$1,mountport=$2 "10.0.2.2:$3" "$4"; do
        tries=$((tries + 1))
        [ $tries -lt 20 ] || { echo "FAIL mount of $3"; poweroff -f; }
        sleep 1
    done
}
@MOUNTS@
measure() { # SIDE WORK COUNT
    case $2 in create) on=persist ;; *) on=view ;; esac
    seconds=$(/bin/bench_guest "$2" "/$1/$on" "$3") && echo "RESULT $1 $2 $seconds" || echo "FAIL $1 $2"
}
round=0
while [ $round -le @ROUNDS@ ]; do
    if [ $((round % 2)) = 0 ]; then sides="ours rival"; else sides="rival ours"; fi
    for work in @WORK@; do
        for side in $sides; do measure $side ${work%:*} ${work#*:}; done
    done
    round=$((round + 1))
done
echo ALLDONE
poweroff -f
"""


def module_files(tree):
    """Paths of the wanted modules in the tree of an image, those that others need before them."""
    (version,) = os.listdir(f"{tree}/lib/modules")
    base = f"{tree}/lib/modules/{version}"
    needs = {}
    with open(f"{base}/modules.dep") as lines:
        for line in lines:
            path, _, rest = line.partition(":")
            needs[path] = rest.split()
    name = lambda path: os.path.basename(path).partition(".")[0].replace("-", "_")
    order = []
    for wanted in MODULES:
        # What is not there is built into the kernel.
        for path in (p for p in needs if name(p) == wanted):
            order += [p for p in (*reversed(needs[path]), path) if p not in order]
    return [f"{base}/{path}" for path in order]


def newc(files):
    """An archive in cpio's format newc (Linux, early-userspace/buffer-format) of (name, mode, bytes)."""
    out = bytearray()
    pad = lambda: out.extend(b"\0" * (-len(out) % 4))
    for number, (name, mode, data) in enumerate([*files, ("TRAILER!!!", 0, b"")]):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        pad()
        out += data
        pad()
    return bytes(out)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def archive(directory, tree, mounts, rounds):
    program = f"{directory}/bench_guest"
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench_guest.c")
    run(["gcc", "-O2", "-static", "-Wall", "-Werror", "-o", program, source])
    lines = []
    for side, ports, roots in mounts:
        for name, root in zip(("view", "persist"), roots):
            lines += [f"mkdir -p /{side}/{name}", f"attach {ports[0]} {ports[1]} {root} /{side}/{name}"]
    init = INIT.replace("@MOUNTS@", "\n".join(lines)).replace("@ROUNDS@", str(rounds))
    init = init.replace("@WORK@", " ".join(f"{name}:{count}" for name, count in WORK))
    files = [(name, 0o040755, b"") for name in ("bin", "dev", "proc", "sys", "modules")]
    files += [
        ("bin/busybox", 0o100755, read(f"{tree}/bin/busybox")),
        ("bin/bench_guest", 0o100755, read(program)),
        ("init", 0o100755, init.encode()),
    ]
    files += [(f"modules/{n:02}.ko", 0o100644, read(path)) for n, path in enumerate(module_files(tree))]
    return newc(files)


def measured(directory, tree, mounts, rounds):
    """Seconds by work and side; the first round is not counted. Also the command line of the guest."""
    initrd, console = f"{directory}/guest.cpio", f"{directory}/guest.log"
    with open(initrd, "wb") as file:
        file.write(archive(directory, tree, mounts, rounds))
    line = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-accel", "tcg", "-cpu", "max", "-m", "512M"]
    line += ["-display", "none", "-no-reboot", "-serial", f"file:{console}", "-netdev", "user,id=net0"]
    line += ["-device", "virtio-net-pci,netdev=net0,romfile=", "-kernel", f"{tree}/boot/pc-x86-64/kernel"]
    line += ["-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"]
    try:
        subprocess.run(line, stdin=subprocess.DEVNULL, timeout=LIMIT * (rounds + 1), check=False)
    except subprocess.TimeoutExpired:
        give_up(f"the guest did not end; its console is {console}")
    said = read(console).decode(errors="replace").splitlines()
    if "ALLDONE" not in [text.strip() for text in said] or any("FAIL" in text for text in said):
        give_up("the guest failed:\n" + "\n".join(said[-30:]))
    figures = {}
    for words in (text.split() for text in said if text.startswith("RESULT ")):
        figures.setdefault((words[2], words[1]), []).append(float(words[3]))
    return {key: list_of[1:] for key, list_of in figures.items()}, line
