#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1 OR MIT
"""Make man pages, in mdoc(7), of the kernel-doc comments of libdoorbell.h.

Usage: man.py DIR PAGE...

PAGE is libdoorbell, or the name of a function or of a type. Makes DIR/PAGE.3.

This is not the kernel's scripts/kernel-doc, because make install-lib must not
need a kernel tree. make lint lets that script check the comments.
"""

import fnmatch
import pathlib
import re
import sys

HEADER = pathlib.Path(__file__).parent / "libdoorbell.h"
DATE = "November 29, 2026"
# Words of the text, as regular expressions, and their lines in mdoc.
MARKUP = (
    (r"@(\w+)", r".Fa \1"),
    (r"((?:lib)?doorbell(?:_\w+)?)\(\)", r".Xr \1 3"),
    (r"(read|write|poll|epoll_wait|fork)\(\)", r".Xr \1 2"),
    (r"(doorbell_notify_fn)", r".Xr \1 3"),
    (r"(E[A-Z]+)", r".Er \1"),
    (r"-(E[A-Z]+)", r".Pf \\- Er \1"),
    (r"(NULL|DOORBELL_[A-Z_]+\*?)", r".Dv \1"),
    (r"<(.*\.h)>", r".In \1"),
    (r"(/dev/doorbell)", r".Pa \1"),
    (r"(errno)", r".Va \1"),
)


class Comment:
    """A kernel-doc comment and the declaration that follows it."""

    def __init__(self, text, declaration):
        lines = [line[3:] for line in text.splitlines()]
        self.name, self.brief = re.fullmatch(
            r"(?:DOC: |typedef )?(\w+)(?:\(\))? - (.*)", lines[0]).groups()
        self.declaration = " ".join(declaration.split())
        self.args = {}
        self.body = []
        self.result = []
        part = self.body
        for line in lines[1:]:
            if match := re.match(r"@(\w+): (.*)", line):
                part = self.args[match[1]] = []
                line = match[2]
            elif line.startswith("Return: "):
                part = self.result
                line = line.removeprefix("Return: ")
                line = line[0].upper() + line[1:]
            elif not line and part is not self.result:
                part = self.body
            part.append(line)

    def takes(self, name):
        """Does an argument's description have the constant, or PREFIX_*?"""
        return any(fnmatch.fnmatchcase(name, word)
                   for word in " ".join(sum(self.args.values(), [])).split())


def read_header():
    """Return all comments."""
    found = re.findall(r"^/\*\*\n(.*?)\n \*/\n(?:(?!#)([^;]*);)?",
                       HEADER.read_text(encoding="ascii"), re.M | re.S)
    return [Comment(*pair) for pair in found]


def words(text):
    """Yield lines of mdoc: macros and sentences have lines of their own."""
    line = []
    for word in text.split():
        for regex, macro in MARKUP:
            if match := re.fullmatch(regex + "([.,:;]?)", word):
                yield " ".join(line)
                line = []
                yield f"{match.expand(macro)} {match[2]}".rstrip()
                break
        else:
            line.append(word)
            if word.endswith("."):
                yield " ".join(line)
                line = []
    yield " ".join(line)


def paragraphs(lines):
    """Yield lines of mdoc for paragraphs and lists."""
    for block in "\n".join(lines).strip().split("\n\n"):
        items = re.split(r"^ *- ", block, flags=re.M)
        if len(items) == 1:
            yield ".Pp"
            yield from words(block)
        else:
            yield ".Bl -bullet"
            for item in items[1:]:
                yield ".It"
                yield from words(item)
            yield ".El"


def definitions(pairs):
    """Yield a list of terms, if there are any, and their descriptions."""
    if pairs:
        yield ".Bl -tag -width Ds"
        for term, lines in pairs:
            yield f".It {term}"
            yield from words(" ".join(lines))
        yield ".El"


def prototype(comment):
    """Yield the synopsis of a function, or of the type of one."""
    start, args = comment.declaration.removesuffix(")").rsplit("(", 1)
    kind, name = re.fullmatch(r"(.*?) ?(\w+|\(.*\))", start).groups()
    yield f".Ft {kind}"
    yield f".Fn {name} " + " ".join(f'"{arg}"' for arg in args.split(", "))


def page(comment, comments):
    """Yield the lines of a page."""
    declared = [other for other in comments if other.declaration]
    yield r'.\" SPDX-License-Identifier: LGPL-2.1 OR MIT'
    yield f".Dd {DATE}"
    yield f".Dt {comment.name.upper()} 3"
    yield ".Os"
    yield ".Sh NAME"
    yield f".Nm {comment.name}"
    yield f".Nd {comment.brief}"
    yield ".Sh LIBRARY"
    yield "libdoorbell"
    yield r".Pq Fl ldoorbell"
    yield ".Sh SYNOPSIS"
    yield ".In libdoorbell.h"
    for one in [comment] if comment.declaration else declared:
        yield from prototype(one)
    yield ".Sh DESCRIPTION"
    yield from definitions([(f"Fa {name}", lines)
                            for name, lines in comment.args.items()])
    yield from definitions([(f"Dv {other.name}", [other.brief])
                            for other in comments
                            if comment.takes(other.name)])
    if any(comment.body):
        yield from paragraphs(comment.body)
    if comment.declaration:
        if comment.result:
            yield ".Sh RETURN VALUES"
            yield from words(" ".join(comment.result))
        yield ".Sh SEE ALSO"
        yield ".Xr libdoorbell 3 ,"
    else:
        yield from definitions([(f"Xr {other.name} 3", [other.brief])
                                for other in declared])
        yield ".Sh SEE ALSO"
        yield ".Xr doorbell 1 ,"
    yield ".Xr doorbell 4"


def main():
    """Write the pages that the command line names."""
    comments = read_header()
    for name in sys.argv[2:]:
        comment, = (one for one in comments if one.name == name)
        text = "\n".join(line for line in page(comment, comments) if line)
        text = text.replace(f".Xr {name} 3", f".Fn {name}")
        text = text.replace(".Sh DESCRIPTION\n.Pp\n", ".Sh DESCRIPTION\n")
        (pathlib.Path(sys.argv[1]) / f"{name}.3").write_text(text + "\n")


main()
