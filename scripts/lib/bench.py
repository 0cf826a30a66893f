"""The measuring half of scripts/bench, which sets the machine up, calls this, and cleans up.

Every figure is the wall time of one operation, ours and the rival's in turns, the first of a round
changing from round to round. One operation of each side runs before, and is not counted.
"""

import json
import os
import pty
import pwd
import re
import shlex
import socket
import sqlite3
import statistics
import subprocess
import time

from bench_common import (
    LIMIT, MINI, NODE, PODMAN_RUN, command_line, give_up, in_turns, load, podman, processor_time, qemu_of, remove_nodes,
    run, run_part, say, spread, tell, timed, verdict,
)  # fmt: skip

# Pause between two attempts to read the ssh banner, in seconds.
POLL = 0.05
# 100 MB in 2,000 files, of bytes that no one can compress.
CHANGE = (
    "mkdir /root/delta; i=0; while [ $i -lt 2000 ]; do "
    "dd if=/dev/urandom of=/root/delta/$i bs=50000 count=1 2>/dev/null; i=$((i+1)); done"
)
NODES = 200


# --- boot ---------------------------------------------------------------------------------------------


def started(pid):
    """When a process was started, in seconds of the clock since the machine's boot (to 10 ms)."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def clock():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_banner(address):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            with socket.create_connection((address, 22), timeout=0.5) as connection:
                connection.settimeout(5)
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        time.sleep(POLL)
    give_up(f"waited {LIMIT} s for the ssh banner of {address}")


def argument(line, option):
    return line[line.index(option) + 1]


def kernel_argument(line, name):
    for word in argument(line, "-append").split():
        if word.startswith(name + "="):
            return word[len(name) + 1 :]
    give_up(f"no {name}= on the kernel's command line")


def rival_line(options, pid, line, number=0):
    """A qemu's command line with files in place of descriptors, another root, address and tap."""
    work = os.path.join(options.dir, "work/rival")
    client, server = kernel_argument(line, "ip").split(":")[:2]
    net = options.rival_net
    result, words = [line[0]], iter(line[1:])
    for word in words:
        if word == "-add-fd":
            next(words)
            continue
        result.append(word)
        value = None
        if word == "-chardev":
            name = re.search("id=([a-z]+)", next(words))[1]
            value = f"socket,id={name},path={work}/{name}{number}.sock,server=on,wait=off"
            if name == "console":
                value += f",logfile={work}/console{number}.log,logappend=on"
        elif word == "-netdev":
            next(words)
            value = f"tap,id=net0,ifname={options.rival_tap}{number},script=no,downscript=no"
        elif word == "-kernel":
            value = os.readlink(f"/proc/{pid}/fd/{next(words).rpartition('/')[2]}")
        elif word == "-initrd":
            next(words)
            value = f"{work}/initrd.cpio"
        elif word == "-append":
            value = next(words).replace(f"{client}:", f"{net}.{number + 2}:").replace(server, f"{net}.1")
        if value is not None:
            result.append(value)
    drive = f"if=none,id=root,file={work}/disk,format=raw,readonly=on"
    return result + ["-drive", drive, "-device", "virtio-blk-pci,drive=root"]


class Boot:
    def __init__(self, options):
        self.options = options
        self.line = None
        self.rival_line = None
        self.calls = []
        self.processor = ([], [])
        self.log = open(os.path.join(options.dir, "server.log"))

    def create(self):
        run([self.options.walt, "node", "create", NODE])
        return qemu_of(NODE)

    def remove(self):
        run([self.options.walt, "node", "remove", "-y", NODE])

    def nfs_calls(self):
        """What the server has counted when the node said that its sshd answers."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            line = re.sub("\x1b\\[[0-9;]*m", "", self.log.readline())
            if "node is booted" in line:
                return int(re.search(r"nfs_calls=(\d+)", line)[1])
            if not line:
                time.sleep(0.02)
        give_up(f"waited {LIMIT} s for the server to log that the node is booted")

    def ours(self):
        self.log.seek(0, os.SEEK_END)
        pid = self.create()
        line = command_line(pid)
        wait_banner(kernel_argument(line, "ip").split(":")[0])
        seconds = clock() - started(pid)
        self.processor[0].append(processor_time(pid))
        self.calls.append(self.nfs_calls())
        if self.rival_line is None:
            self.line = line
            self.rival_line = rival_line(self.options, pid, line)
        self.remove()
        return seconds

    def rival(self):
        process = subprocess.Popen(self.rival_line)
        try:
            wait_banner(self.options.rival_net + ".2")
            seconds = clock() - started(process.pid)
            self.processor[1].append(processor_time(process.pid))
            return seconds
        finally:
            process.kill()
            process.wait()


def boot(options):
    say(f"\nboot: qemu's start to the ssh banner, load {load()}")
    both = Boot(options)
    ours, rival = in_turns(options.rounds, both.ours, both.rival)
    say(f"  ours:  walt node create {NODE}, which runs")
    say(f"    {shlex.join(both.line)}")
    say("  rival: the same tree on ext4 (walt-init stacks the same RAM layer; no /persist, no node link):")
    say(f"    {shlex.join(both.rival_line)}")
    a, b = tell(ours, rival)
    kept = a <= 1.25 * b or a - b <= 4
    say(f"  ours/rival {a / b:.2f}, {a - b:+.2f} s; limit 1.25 or +4 s, goal +2.5 s: {verdict(kept)}")
    for name, seconds in zip(("ours ", "rival"), both.processor):
        say(f"  {name}  processor time of qemu until then: {spread(seconds[1:], 's', 2)}")
    say(f"  load at the end {load()}")
    calls = both.calls[1:]
    say(f"  NFS calls per boot, counted by the server until the node reports its sshd (to 0.2 s after it answers):")
    say(f"    {spread(calls, 'calls', 0)}; limit 2,500, goal 2,000: {verdict(statistics.median(calls) <= 2500)}")


def first_boot(options):
    run([options.walt, "node", "create", NODE, "--image", options.name])
    qemu_of(NODE)
    run([options.walt, "node", "remove", "-y", NODE])


def layers(options):
    """Layers of an image of the caller, top first, one a line; the newest platform layer, if any, is the first."""
    state = os.path.join(options.dir, "state")
    user = pwd.getpwuid(os.getuid()).pw_name
    with database(options) as db:
        found = db.execute("SELECT image_id FROM refs WHERE fullname = ?", [f"{user}/{options.name}:latest"])
        image = found.fetchone()[0]
        platforms = db.execute("SELECT diff_id FROM platforms WHERE image_id = ? ORDER BY rowid", [image]).fetchall()
    with open(f"{state}/images/configs/{image.rpartition(':')[2]}.json") as file:
        below = json.load(file)["rootfs"]["diff_ids"]
    for layer in [row[0] for row in platforms[-1:]] + below[::-1]:
        say(layer.rpartition(":")[2])


# --- nodes --------------------------------------------------------------------------------------------

# Nodes of the part 'nodes'.
MANY = 10


def memory(pid, field):
    """A figure of /proc/<pid>/status, in MB."""
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.M)[1]) / 1024


def memory_of(pid):
    """Figures of /proc/<pid>/smaps_rollup in MB: resident, its proportional share, what only it has."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        text = file.read()
    figure = lambda name: int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1]) / 1024
    return figure("Rss"), figure("Pss"), figure("Private_Clean") + figure("Private_Dirty")


def tell_memory(pids):
    for name, figures in zip(("resident", "proportional", "private"), zip(*map(memory_of, pids))):
        say(f"  memory per node, {name + ':':13} {spread(figures, 'MB', 1)}, together {sum(figures):,.0f} MB")


class Many:
    """Seconds for all nodes to reach ssh together: after they were made, and after a reboot."""

    def __init__(self, options):
        self.options = options
        self.names = [f"{NODE}-{n}" for n in range(MANY)]
        self.rival_lines = []
        self.server_seconds = []
        self.memory = []

    def ours(self):
        walt, before = self.options.walt, processor_time(self.options.server_pid)
        self.remove()
        begin = time.monotonic()
        for name in self.names:
            run([walt, "node", "create", name, "--image", MINI])
        first = {name: qemu_of(name) for name in self.names}
        lines = [command_line(first[name]) for name in self.names]
        addresses = [kernel_argument(line, "ip").split(":")[0] for line in lines]
        list(map(wait_banner, addresses))
        booted = time.monotonic() - begin
        if not self.rival_lines:
            self.rival_lines = [
                rival_line(self.options, first[name], line, n) for n, (name, line) in enumerate(zip(self.names, lines))
            ]
        # A reboot is asked for over the node link, which comes after sshd.
        run([walt, "node", "wait", "--timeout", str(LIMIT), ",".join(self.names)])
        begin = time.monotonic()
        run([walt, "node", "reboot", ",".join(self.names)])
        for name in self.names:
            self.wait_another(name, first[name])
        list(map(wait_banner, addresses))
        rebooted = time.monotonic() - begin
        self.memory = [memory_of(qemu_of(name))[1] for name in self.names]
        self.server_seconds.append(processor_time(self.options.server_pid) - before)
        self.remove()
        return booted + rebooted

    def remove(self):
        remove_nodes(self.options, self.names)

    def wait_another(self, name, pid):
        end = time.monotonic() + LIMIT
        while qemu_of(name) == pid:
            if time.monotonic() > end:
                give_up(f"waited {LIMIT} s for the reboot of {name}")
            time.sleep(0.05)

    def rival(self):
        return self.boot_rivals() + self.boot_rivals()

    def boot_rivals(self):
        begin = time.monotonic()
        processes = [subprocess.Popen(line) for line in self.rival_lines]
        try:
            for n in range(MANY):
                wait_banner(f"{self.options.rival_net}.{n + 2}")
            return time.monotonic() - begin
        finally:
            for process in processes:
                process.kill()
                process.wait()


def nodes(options):
    say(f"\nnodes: {MANY} mini nodes boot together, then reboot together, to the last ssh banner, load {load()}")
    many = Many(options)
    ours, rival = in_turns(options.rounds, many.ours, many.rival)
    names = ",".join(many.names)
    say(f"  ours:  walt node create … ({MANY} times); walt node reboot {names}")
    say("  rival: the same tree on ext4, each qemu killed and started again in place of a reboot:")
    say(f"    {shlex.join(many.rival_lines[0])}")
    a, b = tell(ours, rival)
    say(f"  ours/rival {a / b:.2f}; limit 1.3: {verdict(a <= 1.3 * b)}")
    say(f"  server: processor time {spread(many.server_seconds[1:], 's', 2)}")
    say(f"  memory per node, proportional, after its second boot: {spread(many.memory, 'MB', 1)}")
    resident, most = (memory(options.server_pid, field) for field in ("VmRSS", "VmHWM"))
    say(f"  server: {resident:.0f} MB resident at the end, {most:.0f} MB at most")


# Seconds after the boot for a node to become idle.
SETTLE = 60


def node_memory(options):
    """Nodes of the default image, idle: what each of them takes on the server."""
    names = [f"{NODE}-{n}" for n in range(MANY)]
    remove_nodes(options, names)
    for name in names:
        run([options.walt, "node", "create", name, "--image", options.name])
    run([options.walt, "node", "wait", "--timeout", str(10 * LIMIT), ",".join(names)])
    time.sleep(SETTLE)
    say(f"\nmemory: {MANY} nodes of {options.name}, idle {SETTLE} s after their boot, load {load()}")
    tell_memory(list(map(qemu_of, names)))
    with open("/sys/kernel/mm/ksm/run") as file:
        merging = file.read().strip() == "1"
    with open("/sys/kernel/mm/ksm/pages_sharing") as file:
        saved = int(file.read()) * os.sysconf("SC_PAGE_SIZE") / 2**20
    say(f"  same-page merging (KSM) is {'on' if merging else 'off'}: {saved:,.0f} MB saved")
    remove_nodes(options, names)


# --- image shells -------------------------------------------------------------------------------------


def shell(options):
    say(f"\nshell: opened and closed by a script that is 'true', load {load()}")
    theirs = [*podman(options), *PODMAN_RUN, "--rm", "localhost/mini", "true"]
    mine = [options.walt, "image", "shell", MINI]
    ours, rival = in_turns(
        max(options.rounds, 15),
        lambda: timed(mine, input=b"true\n"),
        lambda: timed(theirs, stdin=subprocess.DEVNULL),
    )
    say(f"  ours:  echo true | {shlex.join(mine)}")
    say(f"  rival: {shlex.join(theirs)}")
    a, b = tell(ours, rival, 1000, "ms", 0)
    say(f"  ours/rival {a / b:.2f}; limit 0.6: {verdict(a <= 0.6 * b)}")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command):
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)

    def wait_for(self, text):
        while text not in self.text:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            if not data:
                give_up(f"the terminal ended before it showed '{text}':\n{self.text}")
            self.text += data.decode(errors="replace")
        self.text = self.text.partition(text)[2]

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        if status:
            give_up(f"the program on the terminal ended with {status}")


def save_ours(options):
    terminal = Terminal([options.walt, "image", "shell", MINI])
    terminal.wait_for("# ")
    terminal.type(CHANGE + "\r")
    terminal.type("exit\r")
    terminal.wait_for("New image name: ")
    terminal.type("walt-bench-saved\r")
    begin = time.monotonic()
    terminal.wait_for("New image walt-bench-saved saved.")
    seconds = time.monotonic() - begin
    terminal.end()
    run([options.walt, "image", "remove", "-y", "walt-bench-saved"])
    return seconds


def save_rival(options):
    run([*podman(options), *PODMAN_RUN, "--name", "delta", "localhost/mini", "sh", "-c", CHANGE])
    seconds = timed([*podman(options), "commit", "-q", "delta", "localhost/saved"])
    run([*podman(options), "rm", "delta"])
    run([*podman(options), "rmi", "localhost/saved"])
    return seconds


def save(options):
    say(f"\nsave: a session that added 100 MB in 2,000 files, load {load()}")
    ours, rival = in_turns(options.rounds, lambda: save_ours(options), lambda: save_rival(options))
    say(f"  both:  {CHANGE}")
    say(f"  ours:  {options.walt} image shell {MINI}: from the answer to 'New image name:' to 'saved.' (on the disk)")
    say(f"  rival: {shlex.join([*podman(options), *PODMAN_RUN])} --name delta localhost/mini sh -c …")
    say(f"         {shlex.join(podman(options))} commit -q delta localhost/saved: this alone is timed")
    a, b = tell(ours, rival, 1000, "ms", 0)
    say(f"  ours/rival {a / b:.2f}; limit 0.25: {verdict(a <= 0.25 * b)}")


# --- list ---------------------------------------------------------------------------------------------


def database(options):
    return sqlite3.connect(os.path.join(options.dir, "state/walt.sqlite"))


def add_nodes(options):
    """Nodes that were never there: rows in the database of the server, which does not run now."""
    rows = [
        (f"02:00:00:00:00:{n:02x}", f"bench-{n}", f"192.168.205.{n + 10}", "pc-x86-64",
         "waltplatform/pc-x86-64-default:latest", f"00000000-0000-4000-8000-0000000000{n:02x}")
        for n in range(NODES)
    ]  # fmt: skip
    with database(options) as db:
        db.executemany(
            "INSERT INTO nodes (mac, name, ip, model, image, virtual, uuid) VALUES (?, ?, ?, ?, ?, 0, ?)", rows
        )


def remove_rows(options):
    with database(options) as db:
        db.execute("DELETE FROM nodes WHERE name LIKE 'bench-%'")


def list_nodes(options):
    command = [options.walt, "node", "show", "--all"]
    shown = run(command).count("bench-")
    if shown != NODES:
        give_up(f"{shlex.join(command)} shows {shown} nodes, not {NODES}")
    say(f"\nlist: {NODES} nodes (rows of real nodes put in the database of the stopped server), load {load()}")
    ours, floor = in_turns(max(options.rounds, 31), lambda: timed(command), lambda: timed(["/bin/true"]))
    say(f"  ours:  {shlex.join(command)}")
    say("  rival: /bin/true, the least that a command costs here")
    a, _ = tell(ours, floor, 1000, "ms", 1)
    say(f"  goal 10 ms: {'reached' if a <= 0.010 else 'not reached'}")


run_part({
    "boot": boot, "first-boot": first_boot, "layers": layers, "shell": shell, "save": save,
    "add-nodes": add_nodes, "remove-nodes": remove_rows, "list": list_nodes, "nodes": nodes, "memory": node_memory,
})  # fmt: skip
