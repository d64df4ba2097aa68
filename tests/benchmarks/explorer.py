"""How quick is the explorer with many replies? `python tests/benchmarks/explorer.py [N_REPLIES]`: size of the page, first paint, a search, a sort.

Replies of 60 words that do not repeat themselves, to a row of two sentences; a page on disk, opened anew each time in Chromium without a window.
"""

import argparse
import random
import shutil
import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from zero_shot_distill.prompt.replies import read_each
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.store.request import Response
from zero_shot_distill.study.explore import Explorer
from zero_shot_distill.task.task import Example, load_task

N_RUNS = 7
TASK = load_task("pocket_nli")
TELL = PromptTemplate(id="tell", user_message="Premise: {premise}\nHypothesis: {hypothesis}\nWhich label, and why?", read="label-first")


def explorer(n: int) -> Explorer:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 10))) for _ in range(20_000)]

    def sentence(k: int) -> str:
        return " ".join(draw.choices(words, k=k)) + "."

    asked = []
    for place in range(n):
        row = Example(f"row-{place}", {"premise": sentence(15), "hypothesis": sentence(10)}, draw.choice(TASK.labels), None)
        text = f"{draw.choice(TASK.labels).capitalize()}. {sentence(60)}"
        asked.append(
            (TELL, row, Response(f"{draw.getrandbits(256):064x}", text, "stop", 70, 80, 0.5, 1, "2026-11-28T12:00:00+00:00", "some-model"))
        )
    return Explorer(title="Many", about="some-model", task=TASK, replies=list(read_each(asked, TASK)), templates={"tell": TELL})


def main(n: int) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = explorer(n).write(Path(folder) / "replies.html")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        times: dict[str, list[float]] = {"first paint": [], "search": [], "sort": []}
        for _ in range(N_RUNS):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(path.as_uri())
            page.wait_for_selector("tbody tr")
            while not page.evaluate("performance.getEntriesByName('first-contentful-paint').length"):
                page.wait_for_timeout(50)
            times["first paint"].append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            searched = "(() => { const at = performance.now(); const box = document.querySelector('input[type=search]'); box.value = 'zz'; box.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - at })()"
            times["search"].append(page.evaluate(searched))
            page.evaluate(
                "(() => { const box = document.querySelector('input[type=search]'); box.value = ''; box.dispatchEvent(new Event('input')) })()"
            )
            sorted_ = "(() => { const at = performance.now(); [...document.querySelectorAll('th button')].find(one => one.textContent == 'words').click(); document.body.offsetHeight; return performance.now() - at })()"
            times["sort"].append(page.evaluate(sorted_))
            page.close()
        print(f"{n:,} replies, {path.stat().st_size / 1e6:.1f} MB, {N_RUNS} runs")
        for name, found in times.items():
            print(f"{name:12} median {statistics.median(found):6.0f} ms, {min(found):.0f} to {max(found):.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How quick is the explorer with many replies?")
    parser.add_argument("n_replies", nargs="?", type=int, default=10_000)
    main(parser.parse_args().n_replies)
