# SPDX-License-Identifier: GPL-2.0
"""Configuration of Sphinx, for "make html".

The documents are also read as files: they link to each other by file name, and
have tables of contents. Both change here for HTML.
"""

import pathlib
import re

from docutils import nodes
import furo
from sphinx import addnodes
from sphinx.util import logging

TOP = pathlib.Path(__file__).resolve().parent.parent

project = "doorbell"
version = release = re.search(r'^PACKAGE_VERSION="(.*)"',
                              (TOP / "dkms.conf").read_text(), re.M)[1]

# The first two are those of the kernel's own documents.
extensions = ["kerneldoc", "automarkup", "myst_parser"]
kerneldoc_srctree = str(TOP)
# The page of a README has the name of its folder.
source_suffix = {".rst": "restructuredtext", "/README": "restructuredtext"}
myst_heading_anchors = 2
# Types that no document describes.
nitpick_ignore_regex = [
    ("c:identifier", "__(aligned_)?[su](8|16|32|64)|doorbell"),
]
highlight_language = "none"

html_theme = "furo"
html_title = f"doorbell {version}"
html_copy_source = False
html_static_path = ["doorbell.css"]
html_css_files = ["doorbell.css"]
# Debian's furo has dark colours, but not for those who prefer them.
css = pathlib.Path(furo.THEME_PATH, "static/styles/furo.css").read_text()
dark = re.search(r'body\[data-theme="dark"\] \{(.*?)\}', css, re.S)[1]
html_theme_options = {
    "dark_css_variables": dict(re.findall(r"--([\w-]+): *(.*?);", dark)),
}


def document(name):
    """The document of a file that a link names, or None."""
    pages = {"include/uapi/linux/doorbell.h": "api", "CHANGELOG.md": "changes",
             "CONTRIBUTING.md": "contributing", "SECURITY.md": "security",
             "README.md": "readme"}
    match = re.fullmatch(r"(?:Documentation/)?(.*)(\.rst|/README)", name)
    return match[1] if match else pages.get(name)


def adapt(app, doctree):
    """Link to pages instead of files, and leave contents to the theme."""
    for topic in list(doctree.findall(nodes.topic)):
        if "contents" in topic["classes"]:
            topic.parent.remove(topic)
            # Headings link back to it.
            for title in doctree.findall(nodes.title):
                title.attributes.pop("refid", None)
    for desc in list(doctree.findall(addnodes.desc)):
        if desc["objtype"] == "macro":
            describe(desc)
    # kernel-doc indents lists, but they are no quotations.
    for quote in list(doctree.findall(nodes.block_quote)):
        if isinstance(quote[0], nodes.bullet_list):
            quote.replace_self(quote.children)
    for link in list(doctree.findall(nodes.reference)):
        if ":" not in link.get("refuri", ":"):
            replace(app, link, link["refuri"])
    for link in list(doctree.findall(addnodes.pending_xref)):
        if link["reftype"] == "myst" and link["reftarget"][0] != "#":
            replace(app, link, link["reftarget"])


def describe(macro):
    """Remove the second name of a macro, and put its description below it."""
    after = macro.parent[macro.parent.index(macro) + 1:][:2]
    if after[0].astext() == macro[0].astext():
        for node in after:
            macro.parent.remove(node)
        for node in after[1].children:
            macro[1].extend(node.children if isinstance(
                node, nodes.block_quote) else [node])


def replace(app, link, name):
    """Replace a link to a file. A file that is no document gets none."""
    name, _, anchor = name.partition("#")
    page = document(name)
    text = nodes.inline("", "", *link.children)
    if not (TOP / name).exists() and not page:
        logging.getLogger(__name__).warning("no file %s", name, location=link)
    elif anchor:
        headings = re.findall("^#+ (.*)", (TOP / name).read_text(), re.M)
        if anchor not in map(nodes.make_id, headings):
            logging.getLogger(__name__).warning(
                "no heading %s in %s", anchor, name, location=link)
        text = nodes.reference("", "", text, internal=True, refuri=(
            app.builder.get_relative_uri(app.env.docname, page) + "#" + anchor))
    elif page:
        text = addnodes.pending_xref(
            "", text, refdomain="std", reftype="doc", reftarget="/" + page,
            refexplicit=True, refwarn=True, refdoc=app.env.docname)
    link.replace_self(text)


def find_images(_, doctree):
    """README.md names pictures from its own folder."""
    for image in doctree.findall(nodes.image):
        image["uri"] = image["uri"].removeprefix("Documentation/")


def setup(app):
    """Sphinx calls this."""
    app.connect("doctree-read", adapt)
    # before Sphinx looks for them
    app.connect("doctree-read", find_images, priority=100)
