#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1 OR MIT
"""Check that the C code in the documents is code that is compiled.

Usage: check.py

Each block of C in README.md and userspace-api.rst, that is, each with braces,
must be part of an example or of the uapi header. White space does not matter.
"""
import glob
import os
import re
import sys

DOCUMENTS = "README.md", "Documentation/userspace-api.rst"
SOURCES = "examples/*.c*", "include/uapi/linux/doorbell.h"


def blocks(path, lines):
    """Yield the line number and the text of each literal block."""
    start, text, fenced = 0, [], False
    markdown = path.endswith(".md")
    for number, line in enumerate(lines + [""], 1):
        if markdown:
            if line.startswith("```"):
                fenced = not fenced
                if fenced:
                    start = number + 1
                else:
                    yield start, "".join(text)
                    text = []
            elif fenced:
                text.append(line)
        elif start:
            if not line.strip() or line.startswith(" "):
                text.append(line)
            else:
                yield start, "".join(text)
                start, text = 0, []
        if not markdown and line.rstrip().endswith("::") and not start:
            start = number + 1
    if start and text:
        yield start, "".join(text)


def squeeze(text):
    return re.sub(r"\s+", "", text)


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.readlines()


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    sources = [squeeze("".join(read(path)))
               for pattern in SOURCES for path in glob.glob(pattern)]
    found = failed = 0
    for path in DOCUMENTS:
        for number, text in blocks(path, read(path)):
            if "{" not in text:
                continue
            found += 1
            if not any(squeeze(text) in source for source in sources):
                print(f"{path}:{number}: no example has this code",
                      file=sys.stderr)
                failed += 1
    if not found:
        print("no code found", file=sys.stderr)
    return 0 if found and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
