# Sphinx's settings for `make docs` where Quarto is missing. Pages must open from file:// and ask nothing of any other machine.
import re
from configparser import ConfigParser
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import SphinxError

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
html_static_path = ["../../nbs/styles.css"]
html_css_files = ["styles.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style = "tango"
pygments_dark_style = "github-dark"
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


_sidebars = {}  # folder of pages -> the list of all pages as seen from there


def _share_sidebar(app, pagename, templatename, context, doctree):
    "Make the list of all pages once a folder, and mark the page itself in it: made anew for each page it took a third of the build."
    make = context["toctree"]
    folder, _, name = pagename.rpartition("/")
    other = f'<li class="toctree-l1"><a class="reference internal" href="{name}.html">'
    itself = '<li class="toctree-l1 current"><a class="current reference internal" href="#">'

    def shared(**options):
        if folder not in _sidebars:
            _sidebars[folder] = make(**options).replace(itself, other).replace('<ul class="current">', "<ul>")
        return _sidebars[folder].replace(other, itself)

    context["toctree"] = shared


def setup(app):
    app.connect("html-page-context", _share_sidebar, priority=400)  # before the theme's own
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math, None))
