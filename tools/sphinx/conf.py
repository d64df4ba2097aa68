# Sphinx's settings for `make docs` where Quarto is missing. Pages must open from file:// and ask nothing of any other machine.
import posixpath
import re
import sys
from configparser import ConfigParser
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from furo.navigation import get_navigation_tree
from sphinx.errors import SphinxError

sys.path.insert(0, str(Path(__file__).parent))  # for sections.py, the search's index

_settings = ConfigParser(delimiters=["="])
_settings.read(Path(__file__).parents[2] / "settings.ini", encoding="utf-8")
_package = _settings["DEFAULT"]

project = html_title = html_short_title = _package["title"]
author = _package["author"]
project_copyright = _package["copyright"]
version = release = _package["version"]
language = "en"
smartquotes = False  # prose here quotes code

extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_block"]
myst_heading_anchors = 3
root_doc = "index"

add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 80
python_display_short_literal_types = True

html_theme = "furo"
html_static_path = ["../../nbs/styles.css", "search.js", "scrolling.js"]
templates_path = ["templates"]
html_additional_pages = {"search": "search.html"}
html_css_files = ["styles.css"]
html_js_files = [("scrolling.js", {"defer": "defer"})]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style = "a11y-high-contrast-light"  # WCAG AA on the backgrounds of code, which tango's strings were not
pygments_dark_style = "a11y-high-contrast-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1b5e8a", "color-brand-content": "#1b5e8a"},
    "dark_css_variables": {"color-brand-primary": "#7cc0ea", "color-brand-content": "#7cc0ea"},
}


def _visit_math(translator, node):
    "Math as MathML, which browsers draw themselves: MathJax would be fetched from elsewhere."
    block = node.tagname == "math_block"
    try:
        mathml = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        raise SphinxError(f"this formula cannot be turned into MathML: {node.astext()!r}: {error}") from error
    mathml = re.sub(r"\s*\n\s*", "", mathml)
    translator.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise SkipNode


_sidebars = {}  # "": the list of all pages as seen from the home page; folder of pages -> as seen from there


def _hold_sidebar(app, pagename, templatename, context, doctree):
    "Keep the theme from making the list of all pages anew for each page, which took a fifth of the build."
    context["toctree_of_all"], context["toctree"] = context["toctree"], lambda **options: ""


def _share_sidebar(app, pagename, templatename, context, doctree):
    "Make the list of all pages once, write its links as seen from the page's folder, and mark the page itself in it."
    make = context["toctree"] = context.pop("toctree_of_all")
    folder, _, name = pagename.rpartition("/")
    if not _sidebars:
        seen = make(collapse=False, titles_only=True, maxdepth=-1, includehidden=True)
        seen = seen.replace('<a class="current reference internal" href="#">', f'<a class="reference internal" href="{name}.html">')
        seen = seen.replace('role="heading"', 'role="heading" aria-level="2"')
        tree = get_navigation_tree(seen.replace('<ul class="current">', "<ul>").replace(' current">', '">'))
        _sidebars[""] = _with_links(tree, lambda link: posixpath.normpath(posixpath.join(folder, link)))
    if folder not in _sidebars:
        _sidebars[folder] = _with_links(_sidebars[""], lambda link: posixpath.relpath(link, folder))
    context["furo_navigation_tree"] = _marked(_sidebars[folder], f'<a class="reference internal" href="{name}.html">')


def _with_links(tree, change):
    return re.sub(r'(?<=<a class="reference internal" href=")[^"]+', lambda found: change(found[0]), tree)


def _marked(tree, link):
    "The tree with the page of this link shown as the current one, and what it stands below unfolded."
    there = tree.find(link)
    if there < 0:
        return tree
    item = tree.rindex("<li ", 0, there)
    tree = tree[:item] + tree[item:].replace('">', ' current current-page">', 1).replace(
        link, link.replace("reference", "current reference"), 1
    )
    is_below = tree.startswith('<li class="toctree-l2', item)
    top = tree.rindex('<li class="toctree-l1', 0, there) if is_below else item
    return tree[:top] + tree[top:].replace(
        'class="toctree-checkbox"',
        'checked="" class="toctree-checkbox"',
        is_below or tree.startswith('<li class="toctree-l1 has-children', top),
    )


def _plain_signatures(app, pagename, templatename, context, doctree):
    "Write the lines of a long signature as lines: Sphinx makes a list of definitions of them that defines nothing."
    lines = r"<dl>\n((?:<dd><em class=\"sig-param\".*</dd>\n)+)</dl>"
    if "body" in context:
        context["body"] = re.sub(lines, lambda found: re.sub("<(/?)dd>", _as_line, found[1]), context["body"])


def _as_line(tag):
    return "</span>" if tag[1] else '<span class="sig-line">'


def _find_known_names_alone(app, env):
    "Look a Python name up only where some object is called so: `str` and the like were searched for among all objects, each time."
    domain = env.get_domain("py")
    find, last_parts = domain.find_obj, {name.rpartition(".")[2] for name in domain.objects}

    def find_obj(env, modname, classname, name, *options):
        known = name.removesuffix("()").rpartition(".")[2] in last_parts
        return find(env, modname, classname, name, *options) if known else []

    domain.find_obj = find_obj


def setup(app):
    app.connect("html-page-context", _hold_sidebar, priority=400)  # before the theme's own
    app.connect("html-page-context", _share_sidebar, priority=600)  # after it
    app.connect("html-page-context", _plain_signatures)
    app.connect("env-check-consistency", _find_known_names_alone)
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math, None))
    app.setup_extension("sections")
