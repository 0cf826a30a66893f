"""The part 'images' of scripts/bench: getting, building, publishing and saving images, ours and the rivals' in turns.

Both sides use one registry, Debian's docker-registry on loopback, and one disk. What a figure does not name is not in
it: making what is to be measured, and removing the result.
"""

import itertools
import os
import pathlib
import resource
import shlex
import shutil
import time

from bench_common import (
    LIMIT, MINI, NODE, command_line, give_up, in_turns, load, podman, processor_time, qemu_of, remove_nodes, run,
    run_part, say, spread, tell, timed, verdict,
)  # fmt: skip

# Directories of the default image that the big image is made of, one layer each.
BIG = ("usr/lib", "usr/share", "usr/bin", "usr/sbin", "var/lib", "etc")
# What is changed in an image before it is published: a copy of this directory of the default image.
CHANGE = "usr/share/perl"
# Files that a node has changed, and bytes of each.
FILES, SIZE = 10_000, 4096


class Rival:
    """The programs of others, with storage of their own."""

    def __init__(self, options, storage=None):
        """`storage` is a name of other images than the usual ones."""
        self.podman = podman(options)
        if storage:
            self.podman += ["--root", str(work(options, storage)), "--runroot", f"{options.run_dir}/{storage}"]
        at = self.podman.index
        storage = [word for name in ("--root", "--runroot") for word in self.podman[at(name) : at(name) + 2]]
        self.buildah = ["buildah", *storage, "--storage-driver", "overlay"]
        self.registry = f"127.0.0.1:{options.registry}"


def work(options, name):
    return pathlib.Path(options.dir, "work", name)


def tree(options):
    """Files of the default image's lowest layer."""
    return pathlib.Path(options.name)


def push(rival, image, name):
    return [*rival.podman, "push", "-q", "--tls-verify=false", image, f"docker://{rival.registry}/{name}"]


# --- pull ---------------------------------------------------------------------------------------------


def layers_dir(options):
    return pathlib.Path(options.dir, "state/images/layers")


def make_big(options, rival, name, below=""):
    """An image that is in the registry afterwards, its files below a directory that makes all its layers other ones."""
    recipe = work(options, "big.containerfile")
    copies = "".join(f"COPY {path} /{below}{path}\n" for path in BIG)
    recipe.write_text("FROM scratch\nLABEL walt.node.models=pc-x86-64\n" + copies)
    run([*rival.podman, "build", "-q", "--layers", "-f", str(recipe), "-t", f"localhost/{name}", str(tree(options))])
    run(push(rival, f"localhost/{name}", f"bench/{name}:latest"))
    return int(run([*rival.podman, "image", "inspect", "--format", "{{.Size}}", f"localhost/{name}"]))


def pull(options):
    """Each time another image, and nothing is removed meanwhile: ext4 passes over the inodes that were freed in the
    last minutes one by one, which would be most of what is measured (recently_deleted() in its ialloc.c)."""
    builder, rival = Rival(options), Rival(options, "pulls")
    names = [f"big{number}" for number in range(options.rounds + 1)]
    size = [make_big(options, builder, name, f"{name}/") for name in names][0]
    os.sync()
    say(f"\npull: an image of {size / 1e6:.0f} MB in {len(BIG)} layers, gzip by podman, load {load()}")
    copied = work(options, "skopeo")
    copied.mkdir()
    url = f"docker://{rival.registry}/bench/"

    def ours(name):
        return [options.walt, "image", "clone", f"bench:bench/{name}", name]

    def theirs(name):
        return [*rival.podman, "pull", "-q", "--tls-verify=false", f"{url}{name}:latest"]

    def copy(name):
        return ["skopeo", "copy", "-q", "--src-tls-verify=false", f"{url}{name}:latest", f"dir:{copied}/{name}"]

    def with_ours(name):
        before = set(os.listdir(layers_dir(options)))
        seconds = timed(ours(name))
        come = len(set(os.listdir(layers_dir(options))) - before)
        if come != len(BIG):
            give_up(f"{come} layers came, not {len(BIG)}: the others were here before")
        return seconds

    left = {side: iter(names) for side in ("ours", "podman", "skopeo")}
    figures, others, copies = in_turns(
        options.rounds,
        lambda: with_ours(next(left["ours"])),
        lambda: timed(theirs(next(left["podman"]))),
        lambda: timed(copy(next(left["skopeo"]))),
    )
    say(f"  ours:   {shlex.join(ours(names[-1]))}")
    say(f"  rival:  {shlex.join(theirs(names[-1]))}")
    say(f"  skopeo: {shlex.join(copy(names[-1]))}  (layers stay packed)")
    a, b = tell(figures, others)
    say(f"  skopeo {spread(copies, 's', 2)}")
    say(f"  ours/rival {a / b:.2f}; limit 0.6: {verdict(a <= 0.6 * b)}")
    for name in names:
        run([options.walt, "image", "remove", name])
    run([options.walt, "image", "prune", "-y"])
    run([*rival.podman, "rmi", "-a", "-f"])
    run([*builder.podman, "rmi", "-f", *(f"localhost/{name}" for name in names)])
    shutil.rmtree(copied)


# --- build --------------------------------------------------------------------------------------------

STEPS = """FROM {base}
COPY files /srv/files
RUN mkdir /srv/made && cd /srv/made && i=0 && while [ $i -lt 500 ]; do echo $i >$i; i=$((i+1)); done
ENV STAGE=second
RUN cp -a /srv/files /srv/copied && rm /srv/copied/7 && chmod -R g+w /srv/made
COPY --chmod=755 tool /usr/local/bin/
"""


def build(options):
    rival = Rival(options)
    project = work(options, "project")
    (project / "files").mkdir(parents=True)
    for number in range(200):
        (project / "files" / str(number)).write_bytes(os.urandom(50_000))
    (project / "tool").write_text("#!/bin/sh\necho tool\n")
    (project / "Dockerfile").write_text(STEPS.format(base=f"waltplatform/{MINI}"))
    (project / "Containerfile.rival").write_text(STEPS.format(base="localhost/mini"))
    (project / ".dockerignore").write_text("*file*\n!files\n")
    mine = [options.walt, "image", "build", "-y", "--from-dir", str(project), "bench-built"]
    flags = ["--layers", "--runtime", "runc", "--network", "none", "-q"]
    theirs = [*rival.buildah, "bud", *flags, "-f", "Containerfile.rival", "-t", "localhost/built", str(project)]
    salt = itertools.count()

    # Another byte in the first step's files: nothing of the cache is of use.
    def cold(command):
        (project / "files/0").write_text(f"round {next(salt)}")
        return timed(command, cwd=project)

    def cached(command):
        return timed(command, cwd=project)

    for kind, measure, limit in (("cold", cold, 0.6), ("cached", cached, 0.3)):
        say(f"\nbuild, {kind}: five steps on the mini image, with 200 files of 50 kB, load {load()}")
        figures, others = in_turns(options.rounds, lambda: measure(mine), lambda: measure(theirs))
        if kind == "cold":
            for line in STEPS.splitlines()[1:]:
                say(f"  both:  {line}")
        say(f"  ours:  {shlex.join(mine)}")
        say(f"  rival: {shlex.join(theirs)}")
        a, b = tell(figures, others, 1000, "ms", 0)
        say(f"  ours/rival {a / b:.2f}; limit {limit}: {verdict(a <= limit * b)}")


# --- publish ------------------------------------------------------------------------------------------


def publish(options):
    rival = Rival(options)
    make_big(options, rival, "big")
    run([*rival.podman, "rmi", "localhost/big"])
    pulled = f"docker://{rival.registry}/bench/big:latest"
    run([*rival.podman, "pull", "-q", "--tls-verify=false", pulled])
    run([*rival.podman, "tag", f"{rival.registry}/bench/big:latest", "localhost/big"])
    run([options.walt, "image", "clone", "bench:bench/big", "big"])
    project = work(options, "change")
    shutil.copytree(tree(options) / CHANGE, project / "change", symlinks=True)
    size = sum(path.lstat().st_size for path in project.rglob("*") if path.is_file())
    (project / "Dockerfile").write_text("FROM big\nCOPY change /srv/change\n")
    (project / "Containerfile.rival").write_text("FROM localhost/big\nCOPY change /srv/change\n")
    salt = itertools.count()
    mine = [options.walt, "image", "publish", "--registry", "bench", "big-changed"]
    theirs = push(rival, "localhost/changed", "rival/big-changed:latest")

    def change():
        (project / "change/salt").write_text(f"round {next(salt)}")

    def ours():
        change()
        run([options.walt, "image", "build", "-y", "--from-dir", str(project), "big-changed"])
        return timed(mine)

    def with_podman():
        change()
        flags = ["-q", "--layers", "-f", str(project / "Containerfile.rival"), "-t", "localhost/changed"]
        run([*rival.podman, "build", *flags, str(project)])
        return timed(theirs)

    say(f"\npublish: one layer of {size / 1e6:.0f} MB of text ({CHANGE}) is new, load {load()}")
    figures, others = in_turns(options.rounds, ours, with_podman)
    say(f"  ours:  {shlex.join(mine)}")
    say(f"  rival: {shlex.join(theirs)}")
    a, b = tell(figures, others)
    say(f"  ours/rival {a / b:.2f}; limit 0.7: {verdict(a <= 0.7 * b)}")
    # The build cache keeps their layers for a while.
    run([options.walt, "image", "remove", "big-changed"])
    run([options.walt, "image", "remove", "big"])
    run([*rival.podman, "rmi", "-a", "-f"])


# --- node save ----------------------------------------------------------------------------------------


def children_time():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def server_time(options):
    """Processor seconds of the server and of what it has run, ssh for one."""
    with open(f"/proc/{options.server_pid}/stat") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")


def node_save(options):
    rival = Rival(options)
    remove_nodes(options, [NODE])
    run([options.walt, "node", "create", NODE, "--image", MINI])
    qemu = qemu_of(NODE)
    run([options.walt, "node", "wait", "--timeout", str(LIMIT), NODE])
    line = command_line(qemu)
    address = next(w for w in line[line.index("-append") + 1].split() if w.startswith("ip=")).split(":")[0][3:]
    ssh = [
        "ssh", "-F", "none", "-i", f"{options.dir}/state/keys/id_ecdsa", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", f"root@{address}",
    ]  # fmt: skip
    mine = [options.walt, "node", "save", NODE, "bench-saved"]
    theirs = (
        f"set -e; c=$({shlex.join([*rival.buildah, 'from', '-q', 'localhost/mini'])}); "
        f"m=$({shlex.join([*rival.buildah, 'mount'])} $c); "
        f"{shlex.join(ssh)} tar -C / -c -f - root/delta | tar -C $m -x -f -; "
        f"{shlex.join([*rival.buildah, 'commit', '-q', '--rm'])} $c localhost/saved"
    )
    guest, server, programs = [], [], []

    # Files of other bytes each time: a layer that is there already would not be written again.
    def change():
        script = (
            f"BEGIN {{ srand(); for (i = 16; i < {SIZE}; i++) text = text int(10 * rand()); "
            f"for (i = 0; i < {FILES}; i++) {{ file = i; printf \"%016d%s\", i, text > file; close(file) }} }}"
        )
        again = "rm -rf /root/delta; mkdir /root/delta; cd /root/delta"
        run([*ssh, f"{again}; awk '{script}'; [ $(ls | wc -l) = {FILES} ]"])

    def ours():
        change()
        spent = [processor_time(qemu), server_time(options)]
        seconds = timed(mine)
        guest.append(("ours ", processor_time(qemu) - spent[0]))
        server.append(server_time(options) - spent[1])
        run([options.walt, "image", "remove", "bench-saved"])
        return seconds

    def with_tar():
        change()
        spent = [processor_time(qemu), children_time()]
        seconds = timed(["bash", "-c", theirs])
        guest.append(("rival", processor_time(qemu) - spent[0]))
        programs.append(children_time() - spent[1])
        run([*rival.podman, "rmi", "localhost/saved"])
        return seconds

    say(f"\nnode save: {FILES:,} files of {SIZE} bytes that a mini node made, load {load()}")
    figures, others = in_turns(options.rounds, ours, with_tar)
    say(f"  ours:  {shlex.join(mine)}")
    say(f"  rival: {theirs}")
    a, b = tell(figures, others)
    for side in ("ours ", "rival"):
        seconds = [figure for name, figure in guest if name == side][1:]
        say(f"  {side}  processor time of qemu, the guest's seconds: {spread(seconds, 's', 2)}")
    say(f"  ours   processor time of walt-server and its ssh: {spread(server[1:], 's', 2)}")
    say(f"  rival  processor time of ssh, tar and buildah:    {spread(programs[1:], 's', 2)}")
    goal = "reached" if a <= b / 2 else "not reached"
    say(f"  ours/rival {a / b:.2f}; limit 1.0: {verdict(a <= b)}; goal 0.5: {goal}")
    remove_nodes(options, [NODE])


run_part({"pull": pull, "build": build, "publish": publish, "node-save": node_save})
