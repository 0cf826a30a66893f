#!/usr/bin/env python3
"""Writes what packages say about themselves. What is inside a program is asked of cargo.

usage: package.py sbom CRATE        a CycloneDX 1.5 list of what is inside (JSON)
       package.py copyright CRATE   a copyright file as Debian has them
       package.py notices CRATE     the licence files of all crates inside, word by word
       package.py changelog NAME DEBIAN_VERSION   Debian's changelog, from the newest part of CHANGELOG.md

CRATE is a crate of this workspace with the program. Inside are the crates that are linked into it on this machine's kind:
no build scripts, no macros, no tests; with the features that a build of this crate alone has. SOURCE_DATE_EPOCH is the time
that is written. Options of a build that change what is inside: --static, the C library is linked in too.
"""

import email.utils
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
import uuid
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

TOP = Path(__file__).resolve().parents[2]
# C sources that come with crates, and where they say their version.
BUNDLED = {
    "libsqlite3-sys": ("sqlite", "sqlite3/sqlite3.h", r'#define SQLITE_VERSION\s+"(.*)"', "blessing"),
    "zstd-sys": ("zstd", "zstd/lib/zstd.h", r"#define ZSTD_VERSION_(?:MAJOR|MINOR|RELEASE)\s+(\d+)", "BSD-3-Clause"),
}
LICENCE_FILES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE")
# Debian has these texts on every machine.
COMMON = ("Apache-2.0", "CC0-1.0")
# Namespace of the list's serial number (RFC 9562, version 5): any, but always the same.
NAMESPACE = uuid.UUID("6f0f3a3e-6d0c-5f5e-8b0e-57414c540001")
# Width of Debian's changelog.
WIDTH = 78


def run(*words):
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"package.py: '{' '.join(words)}' failed: {done.stderr.strip()}")
    return done.stdout


def epoch():
    return int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def expression(licence):
    """An SPDX expression: cargo's old form has a slash between alternatives."""
    return re.sub(r"\s*/\s*", " OR ", licence or "NOASSERTION")


class Inside:
    """What is in the program of a crate."""

    def __init__(self, crate, is_static):
        self.crate, self.is_static = crate, is_static
        # Edges: a crate is listed with what is below it once, and then with a star.
        self.edges, above = {}, []
        tree = run("cargo", "tree", "--locked", "--package", crate, "--edges", "normal,no-proc-macro",
                   "--prefix", "depth", "--format", " {p}")
        for line in tree.splitlines():
            depth, name, version = re.match(r"(\d+) (\S+) v(\S+)", line).groups()
            key = (name, version)
            del above[int(depth):]
            self.edges.setdefault(key, set())
            if above:
                self.edges[above[-1]].add(key)
            above.append(key)

    @cached_property
    def root(self):
        return next(iter(self.edges))

    @cached_property
    def crates(self):
        """Facts of the crates that are not ours, by name and version."""
        metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1"))
        lock = tomllib.loads((TOP / "Cargo.lock").read_text())
        sums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
        found = {}
        for package in metadata["packages"]:
            key = (package["name"], package["version"])
            if key in self.edges and package["source"]:
                package["checksum"] = sums[key]
                package["dir"] = Path(package["manifest_path"]).parent
                found[key] = package
        return dict(sorted(found.items()))

    def licence_files(self, package):
        files = [f for f in package["dir"].iterdir() if f.is_file() and f.name.upper().startswith(LICENCE_FILES)]
        return sorted(files)

    @cached_property
    def others(self):
        """What is linked and is not a crate: name, version, licence, the crate that brings it."""
        found = [("rust-std", run("rustc", "--version").split()[1], "MIT OR Apache-2.0", None)]
        for key, package in self.crates.items():
            if key[0] in BUNDLED:
                name, file, pattern, licence = BUNDLED[key[0]]
                version = ".".join(re.findall(pattern, (package["dir"] / file).read_text()))
                found.append((name, version, licence, key))
        if self.is_static:
            version = run("dpkg-query", "-W", "-f", "${Version}", "libc6-dev")
            found.append(("glibc", version, "LGPL-2.1-or-later", None))
        return found


def purl(key):
    return f"pkg:cargo/{key[0]}@{quote(key[1], safe='')}"


def sbom(inside):
    def licences(text):
        return [{"expression": expression(text)}] if text else []

    components = []
    for key in sorted(inside.edges):
        if key == inside.root:
            continue
        package = inside.crates.get(key)
        one = {"type": "library", "bom-ref": purl(key), "name": key[0], "version": key[1]}
        if package:
            one["description"] = " ".join((package["description"] or "").split())
            one["licenses"] = licences(package["license"])
            one["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
            one["purl"] = purl(key)
            if package["repository"]:
                one["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        else:
            one["licenses"] = licences("MIT")
        components.append(one)
    edges = {purl(key): {purl(below) for below in belows} for key, belows in inside.edges.items()}
    for name, version, licence, by in inside.others:
        ref = f"pkg:generic/{name}@{version}"
        components.append({"type": "library", "bom-ref": ref, "name": name, "version": version,
                           "licenses": licences(licence), "purl": ref})
        edges.setdefault(ref, set())
        edges[purl(by or inside.root)].add(ref)
    root = {"type": "application", "bom-ref": purl(inside.root), "name": inside.root[0], "version": inside.root[1],
            "licenses": licences("MIT"), "purl": purl(inside.root)}
    bom = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"timestamp": f"{datetime.fromtimestamp(epoch(), UTC):%Y-%m-%dT%H:%M:%SZ}", "component": root,
                     "tools": {"components": [{"type": "application", "name": "scripts/lib/package.py"}]}},
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": sorted(belows)} for ref, belows in sorted(edges.items())],
    }
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps(bom, sort_keys=True))}"
    return json.dumps(bom, indent=1) + "\n"


def holders(inside, package):
    """Lines with a copyright in the licence files of a crate, or else its authors."""
    found = []
    for file in inside.licence_files(package):
        for line in file.read_text(errors="replace").splitlines():
            line = line.strip(" *#/\t")
            held = re.match(r"(?i)copyright\s+(?:\(c\)\s*|©\s*)?(.*)", line)
            # Not the word in a sentence, nor the form that the Apache licence suggests.
            if held and re.match(r"\d{4}|[A-Z]", held[1]) and "[yyyy]" not in line and len(held[1]) < 100:
                if held[1] not in found and not held[1].lower().startswith(("notice", "owner", "license", "holder")):
                    found.append(held[1])
    authors = [re.sub(r"\s*<.*>", "", author) for author in package["authors"]]
    return found or authors or [f"the authors of {package['name']}"]


def debian_licence(text):
    """An SPDX expression as Debian's format has it: 'or' and 'and', names without the word WITH."""
    text = expression(text).replace(" WITH ", "-with-")
    return re.sub(r"[()]", "", re.sub(r"\b(OR|AND)\b", lambda m: m[1].lower(), text))


def copyright_file(inside, package_name):
    mit = (TOP / "LICENSE").read_text().split("\n\n", 2)
    body = "\n".join(" " + (line or ".") for line in mit[2].strip().splitlines())
    out = ["Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
           "Upstream-Name: WalT\n"
           "Source: the repository of WalT\n"
           "Comment: Paragraphs 'crates/*' are the crates that are linked into the program. Their licence files\n"
           f" are in /usr/share/doc/{package_name}/third-party-licences.gz, word by word.",
           f"Files: *\nCopyright: {mit[1].removeprefix('Copyright (c) ')}\nLicense: MIT"]
    names = {"MIT"}
    rows = [(f"crates/{name}-{version}/*", holders(inside, package), debian_licence(package["license"]))
            for (name, version), package in inside.crates.items()]
    owners = {"sqlite": "none: in the public domain", "zstd": "Meta Platforms, Inc. and affiliates",
              "rust-std": "The Rust Project contributors", "glibc": "Free Software Foundation, Inc."}
    rows += [(f"linked/{name}-{version}/*", [owners[name]], debian_licence(licence))
             for name, version, licence, _ in inside.others]
    for files, held, licence in rows:
        out.append(f"Files: {files}\nCopyright: " + "\n ".join(held) + f"\nLicense: {licence}")
        names |= set(re.split(r" or | and ", licence))
    for name in sorted(names):
        if name == "MIT":
            text = body
        elif name in COMMON:
            text = f" On Debian systems, the text is in /usr/share/common-licenses/{name}."
        elif name == "LGPL-2.1-or-later":
            text = " On Debian systems, the text is in /usr/share/common-licenses/LGPL-2.1."
        elif name == "blessing":
            text = " The author disclaims copyright to this source code."
        else:
            text = f" The text is in /usr/share/doc/{package_name}/third-party-licences.gz."
        out.append(f"License: {name}\n{text}")
    return "\n\n".join(out) + "\n"


def notices(inside):
    """Texts that several crates share are there once."""
    texts, without = {}, []
    for (name, version), package in inside.crates.items():
        files = inside.licence_files(package)
        if not files:
            without.append(f"{name} {version}: {package['license']}; {', '.join(package['authors'])}".rstrip("; "))
        for file in files:
            text = file.read_text(errors="replace").strip("\n")
            digest = hashlib.sha256(text.encode()).hexdigest()
            texts.setdefault(digest, (text, []))[1].append(f"{name} {version}: {file.name}")
    parts = ["\n".join(names) + "\n" + "-" * 80 + "\n" + text
             for text, names in sorted(texts.values(), key=lambda entry: entry[1])]
    if without:
        parts.append("These have no licence file; their manifest names the licence:\n" + "\n".join(without))
    return ("\n\n" + "=" * 80 + "\n").join(parts) + "\n"


def changelog(name, version):
    """The newest part of CHANGELOG.md, each point cut to the width of Debian's changelogs."""
    part = re.split(r"^## ", (TOP / "CHANGELOG.md").read_text(), maxsplit=2, flags=re.MULTILINE)[1]
    out, points = [f"{name} ({version}) unstable; urgency=medium", ""], []
    for line in part.splitlines()[1:]:
        if line.startswith("* "):
            points.append(line[2:])
        elif line.startswith("#"):
            points.append(line)
        elif line.strip() and points:
            points[-1] += " " + line.strip()
    for point in points:
        if point.startswith("#"):
            out += [f"  [ {point.strip('# ')} ]"]
        else:
            out += textwrap.wrap(point, WIDTH, initial_indent="  * ", subsequent_indent="    ",
                                 break_long_words=True, break_on_hyphens=False)
    date = email.utils.format_datetime(datetime.fromtimestamp(epoch(), UTC))
    out += ["", f" -- {os.environ['MAINTAINER']}  {date}"]
    return "\n".join(out) + "\n"


def main():
    words = [word for word in sys.argv[1:] if word != "--static"]
    is_static = "--static" in sys.argv[1:]
    match words:
        case ["sbom", crate]:
            text = sbom(Inside(crate, is_static))
        case ["copyright", crate]:
            text = copyright_file(Inside(crate, is_static), "walt" if crate == "walt-cli" else crate)
        case ["notices", crate]:
            text = notices(Inside(crate, is_static))
        case ["changelog", name, version]:
            text = changelog(name, version)
        case _:
            sys.exit(__doc__)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
