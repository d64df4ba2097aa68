"What axe-core finds on a page: rules of WCAG 2.0 to 2.2, levels A and AA, as far as a program can tell."

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def violations(page: Any, left_out: Sequence[str] = ()) -> list[tuple[str, str, str]]:  # rule, element, what is wrong
    "Look at a page as it is now, less the elements that are left out. Skips the test where axe-core is not installed."
    source = Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js")
    if not page.evaluate("'axe' in window"):
        page.evaluate(source.read_text(encoding="utf-8"))
    told = page.evaluate("([left, tags]) => axe.run({exclude: left}, {runOnly: tags, resultTypes: ['violations']})", [[*left_out], WCAG])
    return [
        (rule["id"], node["html"][:200], node["failureSummary"].splitlines()[-1].strip())
        for rule in told["violations"]
        for node in rule["nodes"]
    ]
