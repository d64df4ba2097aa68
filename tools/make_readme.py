"""Write README.md from nbs/index.ipynb, without Quarto: `python tools/make_readme.py`.

Markdown cells are taken as they are, code cells as fenced code with their text output below; cells that begin with
`#| hide` stay out. Relative links are written in the notebook as seen from nbs/ and in the README as seen from the root.
"""

import json
import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(\]\(|\b(?:src|href)=\")([^)\"\s]+)")


def map_links(
    markdown: str,
    change: Callable[[str], str],  # the path of a relative link -> what shall stand there
) -> str:
    "The same text with its relative links changed; addresses, anchors and code stay as they are."

    def changed(match: re.Match) -> str:
        opening, target = match.groups()
        if re.match(r"[a-z][a-z0-9+.-]*:|[#/]", target, re.IGNORECASE):
            return match[0]
        path, hash_mark, anchor = target.partition("#")
        return opening + change(path) + hash_mark + anchor

    parts = _CODE.split(markdown)  # the odd parts are code; a link whose text is code is split around it, which does no harm
    return "".join(part if i % 2 else _LINK.sub(changed, part) for i, part in enumerate(parts))


def readme_text(
    index_path: Path = ROOT / "nbs" / "index.ipynb",
) -> str:  # ends in a newline
    "README.md as the index notebook says it."
    blocks = ["<!-- Written by tools/make_readme.py from nbs/index.ipynb: edit that notebook, then `make export`. -->"]
    for cell in json.loads(index_path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]).strip()
        if not source or re.match(r"#\|\s*(hide|default_exp|export)\b", source):
            continue
        if cell["cell_type"] == "markdown":
            blocks.append(map_links(source, lambda path: posixpath.normpath(posixpath.join("nbs", path))))
        elif cell["cell_type"] == "code":
            blocks.append(f"```python\n{source}\n```")
            text = "".join(_output_text(output) for output in cell["outputs"]).strip()
            if text:
                blocks.append(f"```text\n{text}\n```")
    return "\n\n".join(blocks) + "\n"


def _output_text(output: dict) -> str:
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme_text(), encoding="utf-8")
    print("README.md written", file=sys.stderr)
