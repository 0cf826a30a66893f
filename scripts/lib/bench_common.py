"""What all parts of scripts/bench share: commands, turns, medians."""

import shlex
import statistics
import subprocess
import sys
import time

# Seconds that anything may take before the bench gives up.
LIMIT = 300


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


def in_turns(rounds, ours, rival):
    """Both sides `rounds` times, after one of each that is not counted."""
    ours(), rival()
    figures = ([], [])
    for number in range(rounds):
        sides = [(0, ours), (1, rival)]
        for side, measure in sides if number % 2 == 0 else reversed(sides):
            figures[side].append(measure())
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
