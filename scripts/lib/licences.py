#!/usr/bin/env python3
"""Checks the dependencies of the workspace against deny.toml, with what every machine has: cargo and Python 3.11.

usage: licences.py DENY_TOML < output of `cargo metadata --format-version 1`

It prints what is wrong, one line each, and exits with 1 if there is anything:

* licences: the expression of each crate (SPDX, or the old form with '/') must be satisfied by [licenses] allow;
* bans: no requirement of ours may be a wildcard, except for paths, where deny.toml says so;
* sources: crates come from the default registry or from this workspace, never from git or another registry.

cargo-deny reads the same file and checks more. It takes minutes to build, so it is not part of scripts/test.
"""

import json
import re
import sys
import tomllib

REGISTRY = "registry+"


class Expression:
    """A licence expression (SPDX specification, annex D): OR binds less than AND, which binds less than WITH."""

    def __init__(self, text, allowed):
        # Cargo's old form: alternatives with a slash.
        self.words = re.findall(r"[()]|[^\s()]+", text.replace("/", " OR "))
        self.allowed = allowed
        self.at = 0

    def word(self):
        return self.words[self.at] if self.at < len(self.words) else None

    def take(self):
        word = self.word()
        if word is None:
            raise ValueError("it ends too early")
        self.at += 1
        return word

    def satisfied(self):
        result = self.alternatives()
        if self.word() is not None:
            raise ValueError(f"'{self.word()}' is not expected")
        return result

    def alternatives(self):
        result = self.together()
        while self.word() == "OR":
            self.take()
            result = self.together() or result
        return result

    def together(self):
        result = self.one()
        while self.word() == "AND":
            self.take()
            result = self.one() and result
        return result

    def one(self):
        word = self.take()
        if word == "(":
            result = self.alternatives()
            if self.take() != ")":
                raise ValueError("a parenthesis is not closed")
            return result
        if self.word() == "WITH":
            self.take()
            word += " WITH " + self.take()
        return word in self.allowed


def problems(metadata, deny):
    allowed = set(deny["licenses"]["allow"])
    members = set(metadata["workspace_members"])
    used = set()
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        if package["id"] in members:
            for needed in package["dependencies"]:
                if needed["req"] == "*" and not (needed.get("path") and deny["bans"]["allow-wildcard-paths"]):
                    yield f"{package['name']}: its dependency {needed['name']} has no version: name one"
            continue
        if package["source"] is None:
            yield f"{name}: a path outside the workspace is not a source: make it a member, or take a release"
        elif not package["source"].startswith(REGISTRY):
            yield f"{name}: its source {package['source']} is not the registry: take a release"
        else:
            used.add(package["source"])
        if package["license"] is None:
            yield f"{name}: its manifest names no licence: look at its files, and choose another crate if unsure"
            continue
        try:
            if not Expression(package["license"], allowed).satisfied():
                yield f"{name}: its licence '{package['license']}' is not in the list of deny.toml"
        except ValueError as why:
            yield f"{name}: its licence '{package['license']}' cannot be read: {why}"
    if len(used) > 1:
        yield f"crates come from more than one registry: {', '.join(sorted(used))}"


def main():
    with open(sys.argv[1], "rb") as file:
        deny = tomllib.load(file)
    metadata = json.load(sys.stdin)
    # What this check would say must be seen: a list without entries allows nothing.
    probe = dict(deny, licenses={"allow": []})
    assert any(True for _ in problems(metadata, probe)), "the check finds nothing wrong with an empty list"
    found = list(problems(metadata, deny))
    for line in found:
        print(line)
    print(f"{len(metadata['packages'])} packages looked at, {len(found)} problems", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
