#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1 OR MIT
"""Check that the C code in the documents is code that is compiled.

Usage: check.py

Each block of C in a document (```c in README.md, elsewhere a block with a line
that ends like one of C) must be part of an example, of a test or of the uapi
header. White space does not matter.
"""
import glob
import os
import re
import sys

DOCUMENTS = ("README.md", "Documentation/userspace-api.rst",
             "Documentation/recipes.rst", "Documentation/testing.rst")
SOURCES = ("examples/*.c*", "selftests/doorbell/stream.c",
           "include/uapi/linux/doorbell.h")


def blocks_of_markdown(lines):
    """Yield the line number and the text of each block of C."""
    text = None
    for number, line in enumerate(lines, 1):
        if text is None:
            if line.rstrip() == "```c":
                text = []
        elif line.startswith("```"):
            yield number - len(text), "".join(text)
            text = None
        else:
            text.append(line)


def blocks_of_rst(lines):
    """The same for literal blocks."""
    start, text = 0, []
    for number, line in enumerate(lines + ["end"], 1):
        if start and (not line.strip() or line.startswith(" ")):
            text.append(line)
            continue
        if re.search(r"([^;];|[^ $] \{)$", "".join(text), re.M):
            yield start, "".join(text)
        start, text = number + 1 if line.rstrip().endswith("::") else 0, []


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
        blocks = blocks_of_markdown if path.endswith(".md") else blocks_of_rst
        for number, text in blocks(read(path)):
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
