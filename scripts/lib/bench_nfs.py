"""The part 'nfs' of scripts/bench: our NFS code and nfs-ganesha serve the same directories on loopback. Two clients
use them in turns: libnfs, with one call at a time, and the kernel of a guest.

Ours is the example nfs-serve: what walt-server runs, with a directory as the view and everybody as a node.
"""

import argparse
import ctypes
import os
import random
import shlex
import socket
import subprocess
import time

import bench_guest
from bench_common import LIMIT, give_up, in_turns, load, say, tell

# Bytes of the file that is read, and of one READ.
BIG, PIECE = 256 << 20, 1 << 20
# READs of 4 kB, looked-up files, and small files, a round.
READS, LOOKS, FILES = 5000, 5000, 200
SMALL = 4096
# Directories of the view, and files in each.
TREE = (50, 200)
PORTS = (42049, 42050)
RIVAL_CONF = """
NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = {port}; MNT_Port = {mount}; Enable_NLM = false; Enable_RQUOTA = false; }}
EXPORT {{ Export_Id = 1; Path = {dir}/view; Pseudo = /v; Access_Type = RO; Squash = No_Root_Squash; FSAL {{ Name = VFS; }} }}
EXPORT {{ Export_Id = 2; Path = {dir}/persist; Pseudo = /p; Access_Type = RW; Squash = No_Root_Squash; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = WARN; }}
"""


class Url(ctypes.Structure):
    _fields_ = [("server", ctypes.c_char_p), ("path", ctypes.c_char_p), ("file", ctypes.c_char_p)]


def library():
    nfs = ctypes.CDLL("libnfs.so.13")
    pointer, u64, text, number = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int
    place = ctypes.POINTER(pointer)
    for name, result, arguments in (
        ("nfs_init_context", pointer, []),
        ("nfs_destroy_context", None, [pointer]),
        ("nfs_get_error", text, [pointer]),
        ("nfs_parse_url_dir", ctypes.POINTER(Url), [pointer, text]),
        ("nfs_mount", number, [pointer, text, text]),
        ("nfs_open", number, [pointer, text, number, place]),
        ("nfs_creat", number, [pointer, text, number, place]),
        ("nfs_pread", number, [pointer, pointer, u64, u64, pointer]),
        ("nfs_pwrite", number, [pointer, pointer, u64, u64, pointer]),
        ("nfs_fsync", number, [pointer, pointer]),
        ("nfs_close", number, [pointer, pointer]),
        ("nfs_stat64", number, [pointer, text, pointer]),
        ("nfs_unlink", number, [pointer, text]),
    ):
        function = getattr(nfs, name)
        function.restype, function.argtypes = result, arguments
    return nfs


NFS = library()


class Mounted:
    def __init__(self, url):
        self.context = NFS.nfs_init_context()
        parsed = NFS.nfs_parse_url_dir(self.context, url.encode())
        if not parsed:
            self.failed(url)
        self.check(NFS.nfs_mount(self.context, parsed.contents.server, parsed.contents.path), url)

    def failed(self, what):
        give_up(f"{what}: {NFS.nfs_get_error(self.context).decode()}")

    def check(self, result, what):
        if result < 0:
            self.failed(what)
        return result

    def open(self, call, path, flags):
        file = ctypes.c_void_p()
        self.check(call(self.context, path, flags, ctypes.byref(file)), path)
        return file

    def close(self, file):
        self.check(NFS.nfs_close(self.context, file), "close")

    def end(self):
        NFS.nfs_destroy_context(self.context)


def read(m, pieces):
    """Reads (offset, length) pairs of the big file."""
    buffer = ctypes.create_string_buffer(PIECE)
    file = m.open(NFS.nfs_open, b"/big", os.O_RDONLY)
    begin = time.monotonic()
    for offset, length in pieces:
        if m.check(NFS.nfs_pread(m.context, file, offset, length, buffer), "read") != length:
            give_up("a short read")
    seconds = time.monotonic() - begin
    m.close(file)
    return seconds


def sequential(m):
    return read(m, [(offset, PIECE) for offset in range(0, BIG, PIECE)])


def scattered(m):
    chance = random.Random(1)
    return read(m, [(chance.randrange(BIG // SMALL) * SMALL, SMALL) for _ in range(READS)])


def looked_up(m):
    chance = random.Random(2)
    names = [f"/dir-{chance.randrange(TREE[0]):03}/file-{chance.randrange(TREE[1]):04}".encode() for _ in range(LOOKS)]
    attributes = ctypes.create_string_buffer(256)
    begin = time.monotonic()
    for name in names:
        m.check(NFS.nfs_stat64(m.context, name, attributes), name)
    return time.monotonic() - begin


def created(m):
    data = ctypes.create_string_buffer(b"x" * SMALL, SMALL)
    names = [f"/small-{n}".encode() for n in range(FILES)]
    begin = time.monotonic()
    for name in names:
        file = m.open(NFS.nfs_creat, name, 0o644)
        m.check(NFS.nfs_pwrite(m.context, file, 0, SMALL, data), name)
        m.check(NFS.nfs_fsync(m.context, file), name)
        m.close(file)
    seconds = time.monotonic() - begin
    for name in names:
        m.check(NFS.nfs_unlink(m.context, name), name)
    return seconds


def make_tree(directory):
    os.makedirs(f"{directory}/persist", exist_ok=True)
    for d in range(TREE[0]):
        os.makedirs(f"{directory}/view/dir-{d:03}", exist_ok=True)
        for f in range(TREE[1]):
            with open(f"{directory}/view/dir-{d:03}/file-{f:04}", "w"):
                pass
    with open(f"{directory}/view/big", "wb") as big:
        for _ in range(BIG // PIECE):
            big.write(os.urandom(PIECE))


def guest(options, nodes):
    directory = options.dir
    mounts = (
        ("ours", (PORTS[0], PORTS[0]), (f"{nodes}/fs", f"{nodes}/persist")),
        ("rival", (PORTS[1], PORTS[1] + 1), (f"{directory}/view", f"{directory}/persist")),
    )
    say(f"\nnfs: the kernel of a guest, empty caches, load {load()}")
    figures, line = bench_guest.measured(directory, options.tree, mounts, options.rounds)
    say(f"  guest: {shlex.join(line)}")
    counts = dict(bench_guest.WORK)
    for work, what, scale, unit, goal in (
        ("read", f"read of {counts['read']} MB by 1 MB", 1e3, "ms", 1),
        ("scattered", f"{counts['scattered']} random reads of 4 kB", 1e6 / counts["scattered"], "us each", 1),
        ("stat", f"{counts['stat']} files looked up (stat)", 1e6 / counts["stat"], "us each", 2),
        ("create", f"{counts['create']} files made, 4 kB written, fsync, closed", 1e3 / counts["create"], "ms each", 1),
    ):
        say(f"  {what}")
        judge(tell(figures[work, "ours"], figures[work, "rival"], scale, unit), goal)


def judge(medians, goal):
    ours, rival = medians
    say(f"    rival/ours {rival / ours:.2f}; goal {goal}: {'reached' if rival >= goal * ours else 'not reached'}")


def wait_port(port, process, log):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if process.poll() is not None:
            with open(log, errors="replace") as file:
                give_up(f"{process.args[0]} ended: {file.read()[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    give_up(f"waited {LIMIT} s for {process.args[0]} to listen on port {port}; its log is {log}")


def main():
    parser = argparse.ArgumentParser()
    for option in ("dir", "serve", "tree"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    directory = options.dir
    os.makedirs(directory, exist_ok=True)
    make_tree(directory)
    conf = f"{directory}/ganesha.conf"
    with open(conf, "w") as file:
        file.write(RIVAL_CONF.format(port=PORTS[1], mount=PORTS[1] + 1, dir=directory))
    commands = (
        [options.serve, f"127.0.0.1:{PORTS[0]}", *(f"{directory}/{d}" for d in ("view", "persist", "state"))],
        ["ganesha.nfsd", "-F", "-f", conf, "-L", f"{directory}/ganesha.log", "-p", f"{directory}/ganesha.pid"],
    )
    # ganesha keeps its state of clients there, also where it serves none that has any.
    os.makedirs("/run/ganesha", exist_ok=True)
    logs = [f"{directory}/{name}.log" for name in ("serve", "ganesha-said")]
    processes = []
    try:
        for command, port, log in zip(commands, PORTS, logs):
            with open(log, "wb") as out:
                processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out))
            wait_port(port, processes[-1], log)
        say(f"\nnfs: libnfs, one call at a time, the same files on loopback, load {load()}")
        say(f"  ours:  {' '.join(commands[0])}")
        say(f"  rival: {' '.join(commands[1])}")
        nodes = "/var/lib/walt/nodes/n"
        urls = [
            [f"nfs://127.0.0.1{root}?version=3&nfsport={port}&mountport={mount}" for root in roots]
            for roots, port, mount in (
                ((f"{nodes}/fs", f"{nodes}/persist"), PORTS[0], PORTS[0]),
                ((f"{directory}/view", f"{directory}/persist"), PORTS[1], PORTS[1] + 1),
            )
        ]
        views, persists = zip(*[[Mounted(url) for url in side] for side in urls])
        for what, mounts, measure, scale, unit, goal in (
            (f"read of {BIG >> 20} MB by 1 MB", views, sequential, 1e3, "ms", 1),
            (f"{READS} random reads of 4 kB", views, scattered, 1e6 / READS, "us each", 1),
            (f"{LOOKS} LOOKUP + GETATTR (nfs_stat64 of a file in a directory)", views, looked_up, 1e6 / LOOKS, "us each", 2),
            (f"{FILES} files made, 4 kB written, fsync, closed", persists, created, 1e3 / FILES, "ms each", 1),
        ):  # fmt: skip
            say(f"  {what}")
            figures = in_turns(options.rounds, lambda: measure(mounts[0]), lambda: measure(mounts[1]))
            judge(tell(*figures, scale, unit), goal)
        for mounted in (*views, *persists):
            mounted.end()
        guest(options, nodes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


main()
