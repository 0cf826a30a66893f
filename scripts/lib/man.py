#!/usr/bin/env python3
"""Makes manual pages from what a program prints for --help, so that both come from one table.

usage: man.py PROGRAM DIR --section N --date YYYY-MM-DD --version V --include FILE [--also NAME]...

PROGRAM is run with --help, and so is each command that it lists. DIR gets a page for each, such as walt.1,
walt-node.1, walt-node-create.1. FILE is put into the first one. A further name of the program (--also), and another name
of a command ("the same as 'x'"), become pages that point to the page. It prints how many there are.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

# Headings of lists of commands, and of those of options and arguments.
COMMANDS = ("Categories", "Sub-commands", "Commands")
OPTIONS = ("Meta-switches", "Switches", "Options", "Arguments")
# Lines of an overview that lead to other pages: a manual page has "see also" for that.
LEADS = ("Help about",)
# Seconds for one --help.
LIMIT = 30


def roff(text):
    """Text in which nothing is markup: backslashes, leading dots and quotes, and dashes that are typed as they are."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.split("\n"))


def help_of(program, path):
    done = subprocess.run([program, *path, "--help"], capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"man.py: '{program.name} {' '.join(path)} --help' failed: {done.stderr.strip()}")
    return done.stdout.strip("\n")


def parse(text):
    """What it is about, and (heading, lines) of each section."""
    about, sections = [], []
    for line in text.split("\n"):
        heading = re.fullmatch(r"(\S.*):", line)
        usage = re.fullmatch(r"Usage: (\S.*)", line)
        if usage:
            sections.append(("Usage", ["    " + usage[1]]))
        elif heading:
            sections.append((heading[1], []))
        elif line[:1] not in ("", " ") and sections:
            # Text that follows a section without being part of it.
            if sections[-1][0] != "":
                sections.append(("", []))
            sections[-1][1].append(line)
        elif sections:
            sections[-1][1].append(line)
        else:
            about.append(line)
    about = [line for line in about if line.strip()]
    if about and about[-1].startswith("-> "):
        about = [about[-1][3:]]
    return about, sections


def rows(lines):
    """Rows of two columns; a line that is indented further belongs to the row above."""
    found = []
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        # Options without a short name are indented by the width of one.
        if indent > margin + 4 and found:
            found[-1][1] = (found[-1][1] + " " + line.strip()).strip()
        else:
            name, _, text = line.strip().partition("  ")
            found.append([name, text.strip()])
    return found


def option(name):
    """Names of options in bold, of values in italics."""
    parts = re.split(r"(<[^>]*>|(?<=[ =])[A-Z][A-Z_:a-z]*)", name)
    return "".join(f"\\fI{roff(p)}\\fR" if i % 2 else f"\\fB{roff(p)}\\fR" for i, p in enumerate(parts) if p)


class Manual:
    def __init__(self, options):
        self.options = options
        self.program = options.program.resolve()
        self.count = 0

    def write(self, name, text):
        (self.options.dir / f"{name}.{self.options.section}").write_text(text)
        self.count += 1

    def page(self, path, above):
        """Makes the page of a command and those of the commands below it."""
        program = self.program.name
        name, full = "-".join([program, *path]), " ".join([program, *path])
        section, first = self.options.section, not path
        about, sections = parse(help_of(self.program, path))
        about = [line for line in about if not line.startswith("Version:")] or [above]
        out = [f'.TH "{roff(name).upper()}" {section} "{self.options.date}" "walt {self.options.version}" "WalT"']
        out += [".SH NAME", f"{roff(name)} \\- {roff(about[0].rstrip('.'))}", ".SH SYNOPSIS", ".nf"]
        usage = [line for heading, lines in sections if heading == "Usage" for line in lines]
        out += [f".B {roff(line.strip())}" for line in usage if line.strip().startswith(program)]
        out.append(".fi")
        description, more = "", ""
        if first:
            description, _, more = self.options.include.read_text().strip("\n").partition("\n.SH ")
            out.append(description)
        else:
            sentences = ". ".join(line.rstrip(".") for line in about)
            out += [".SH DESCRIPTION", roff(sentences[:1].upper() + sentences[1:] + ".")]
        out += [".PP\n" + roff(line.strip()) for line in usage
                if line.strip() and not line.strip().startswith(program)]
        commands, switches = [], []
        for heading, lines in sections:
            if heading in COMMANDS:
                commands += rows(lines)
            elif heading in OPTIONS:
                switches += rows(lines)
            elif heading != "Usage" and not heading.startswith(LEADS):
                # Free text of a command.
                out += [".PP", ".nf", roff("\n".join(([heading + ":"] if heading else []) + lines).strip("\n")), ".fi"]
        if commands:
            out.append(".SH COMMANDS")
            for command, text in commands:
                out += [".TP", f".BR {roff(name)}\\-{roff(command)} ({section})", roff(text) or "\\&"]
        if switches:
            out.append(".SH OPTIONS")
            for names, text in switches:
                out += [".TP", option(names), roff(text) or "\\&"]
        if more:
            out.append(".SH " + more)
        # walt-node-create belongs to walt-node and to walt.
        related = [f".BR {roff('-'.join([program, *path[:n]]))} ({section})" for n in range(len(path))]
        if related:
            out += [".SH SEE ALSO", ",\n".join(related)]
        self.write(name, "\n".join(out) + "\n")
        for command, text in commands:
            same = re.fullmatch(r"the same as '(.*)'", text)
            if same:
                self.write(f"{name}-{command}", f".so man{section}/{name}-{same[1]}.{section}\n")
            else:
                self.page([*path, command], text)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--section", required=True)
    parser.add_argument("--date", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--include", type=Path, required=True)
    parser.add_argument("--also", action="append", default=[])
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    manual = Manual(options)
    manual.page([], "")
    name = manual.program.name
    for other in options.also:
        manual.write(other, f".so man{options.section}/{name}.{options.section}\n")
    print(manual.count)


if __name__ == "__main__":
    main()
