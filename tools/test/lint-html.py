#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Check the links between the documents in HTML: part of "make lint".

Usage: lint-html.py DIR

DIR is what "make html" leaves. Each link to a page or an anchor in it has to
lead somewhere. Sphinx checks only the links that it makes from names.
"""
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors and the links of a page."""

    def __init__(self, path):
        super().__init__()
        self.anchors = {"", "top"}
        self.links = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.add(attrs.get("id"))
        if tag == "a" and attrs.get("href") is not None:
            self.links.append((self.getpos()[0], attrs["href"]))


def main():
    top = Path(sys.argv[1]).resolve()
    pages = {path: Page(path) for path in top.rglob("*.html")}
    dead = 0
    for path, page in sorted(pages.items()):
        for line, link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve()
            target = target if url.path else path
            if (unquote(url.fragment) not in pages[target].anchors
                    if target in pages else not target.exists()):
                print(f"{path.relative_to(top)}:{line}: dead link {link}",
                      file=sys.stderr)
                dead += 1
    sys.exit(not pages or dead > 0)


if __name__ == "__main__":
    main()
