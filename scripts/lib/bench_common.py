"""What all parts of scripts/bench share: commands, turns, medians."""

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import time

# Seconds that anything may take before the bench gives up.
LIMIT = 300
NODE = "walt-bench"
MINI = "pc-x86-64-mini"


def say(text=""):
    print(text, flush=True)


def give_up(text):
    sys.exit(f"bench: {text}")


def run(command, **options):
    """Runs a command to its end; its output is shown only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        give_up(f"{shlex.join(command)}: status {done.returncode}\n{done.stdout.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


def timed(command, **options):
    begin = time.monotonic()
    run(command, **options)
    return time.monotonic() - begin


def load():
    with open("/proc/loadavg") as file:
        return file.read().split()[0]


def in_turns(rounds, *sides):
    """All sides `rounds` times, after one of each that is not counted; each round begins with another one."""
    for measure in sides:
        measure()
    figures = [[] for _ in sides]
    for number in range(rounds):
        for side in range(len(sides)):
            side = (side + number) % len(sides)
            figures[side].append(sides[side]())
    return figures


def spread(figures, unit, digits):
    show = lambda value: f"{value:,.{digits}f}"
    low, middle, high = min(figures), statistics.median(figures), max(figures)
    return f"n={len(figures)}  median {show(middle)} {unit}  ({show(low)}..{show(high)})"


def verdict(kept):
    return "within the limit" if kept else "MISSED"


def tell(ours, rival, scale=1, unit="s", digits=2):
    say(f"  ours   {spread([x * scale for x in ours], unit, digits)}")
    say(f"  rival  {spread([x * scale for x in rival], unit, digits)}")
    return statistics.median(ours), statistics.median(rival)


def processor_time(pid):
    """Processor seconds of a process so far: they tell more than wall time when the machine is busy."""
    with open(f"/proc/{pid}/stat") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def command_line(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().split("\0")[:-1]


def qemu_of(name):
    """Process of the node's qemu."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                line = command_line(pid)
            except OSError:
                continue
            if line and "qemu" in line[0] and f"guest={name}" in line:
                return int(pid)
        time.sleep(0.01)
    give_up(f"waited {LIMIT} s for the qemu of {name}")


def remove_nodes(options, names):
    """Also what a run that was interrupted has left."""
    there = run([options.walt, "node", "show", "--all", "--names-only"]).split()
    for name in set(names) & set(there):
        run([options.walt, "node", "remove", "-y", name])


def podman(options):
    return options.podman.split()


# The ulimits are stated because podman's own are refused where root has no CAP_SYS_RESOURCE.
PODMAN_RUN = ["run", "--network", "none", "--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:4096"]


def run_part(parts):
    """Runs what the command line names."""
    parser = argparse.ArgumentParser()
    for option in ("dir", "run-dir", "walt", "rival-net", "rival-tap", "podman"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--registry", type=int, default=0)
    parser.add_argument("part", choices=parts)
    parser.add_argument("name", nargs="?")
    options = parser.parse_args()
    os.environ["WALT_SERVER"] = f"unix:{options.run_dir}/walt.sock"
    parts[options.part](options)
