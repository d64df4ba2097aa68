"""The index of the search: each section of each page with its text, in a script that a page from file:// may load.

Sphinx's own search fetches the pages that it found to show an excerpt of them, which a browser refuses for file://; so does pagefind.
It also knows a page's words, not its sections, and takes `--budget-usd` for "not budget".
"""

import json
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

# How much a page of this kind is worth to who searches: the beginning of its path -> its name and weight.
KINDS = {
    "tutorials/": ("tutorial", 1.3),
    "howto/": ("how-to", 1.4),
    "explanations/": ("explanation", 1.4),
    "getting_started": ("getting started", 1.4),
    "index": ("home page", 1.0),
    "commands/messages": ("message", 1.0),
    "commands/": ("command", 1.2),
    "experiments/": ("experiment", 0.8),
    "CHANGELOG": ("change", 0.4),
    "CONTRIBUTING": ("contributing", 0.5),
}
OTHERS = ("module", 0.5)

_sections: list[tuple[str, str, str, str, str]] = []  # address, page, kind, title, text
_weights: dict[str, float] = dict([*KINDS.values(), OTHERS])


def _name_options(app, doctree):
    "Give each option in a command's table a place that a link can name."
    if app.env.docname.startswith("commands/"):
        for row in doctree.findall(nodes.row):
            if (name := row[0].astext().split(" ")[0]).startswith("--"):
                row["ids"].append(f"option{name[1:]}")


def _own_text(node, with_code=True):
    "The text of a section without that of the sections and entries in it; HTML, e.g. a table of pandas, has its text elsewhere, too."
    if isinstance(node, nodes.Text):
        yield node.astext()
    elif (isinstance(node, nodes.row) and node["ids"]) or ("cell_input" in node.get("classes", ()) and not with_code):
        return
    elif not isinstance(node, nodes.raw | nodes.comment | nodes.title | addnodes.toctree | addnodes.desc_signature):
        for child in node.children:
            if not isinstance(child, nodes.section | addnodes.desc):
                yield from _own_text(child, with_code)
        if isinstance(node, nodes.TextElement | nodes.entry):
            yield " "


def _take(app, pagename, templatename, context, doctree):
    if doctree is None:
        return
    page = context.get("title", pagename)
    kind, _ = next((told for start, told in KINDS.items() if pagename.startswith(start)), OTHERS)

    with_code = kind not in (OTHERS[0], "experiment")  # there it is what the words are about, elsewhere it is a test of them

    def keep(place, title, text):
        _sections.append((f"{pagename}.html" + f"#{place}" * bool(place), page, kind, title, " ".join(text.split())))

    for section in doctree.findall(nodes.section):
        if pagename == "commands/messages":
            for item in section.findall(nodes.list_item) if isinstance(section.parent, nodes.section) else ():
                keep(section["ids"][0], section[0].astext(), item.astext())
        else:
            is_top = not isinstance(section.parent, nodes.section)
            keep("" if is_top else section["ids"][0], page if is_top else section[0].astext(), "".join(_own_text(section, with_code)))
    for row in doctree.findall(nodes.row):
        if row["ids"]:
            what = "".join("".join(_own_text(entry)) + " " for entry in row[1:])
            keep(row["ids"][0], row[0].astext(), what)
    for entry in doctree.findall(addnodes.desc):
        signature, content = entry[0], entry[-1]
        if signature["ids"]:
            keep(signature["ids"][0], signature.get("fullname", ""), f"{signature.astext()} {''.join(_own_text(content))}")


def _write(app, exception):
    if exception is None:
        made = {"weights": _weights, "sections": _sections}
        text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
        Path(app.outdir, "_static", "search_sections.js").write_text(f"const SEARCH = {text};\n", encoding="utf-8")


def _without_its_own(app):
    app.builder.search = False  # Sphinx's index would be made and never read


def setup(app):
    app.connect("builder-inited", _without_its_own)
    app.connect("doctree-read", _name_options)
    app.connect("html-page-context", _take)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True}
