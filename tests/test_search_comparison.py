"Searches of several proposers beside each other: what is read, what is said, what is drawn. The scripted teacher and optimiser are those of `test_opro`."

import re
import shutil
from collections import Counter
from html import unescape
from urllib.parse import parse_qsl, urlsplit

import pytest
from scripted_server import ScriptedServer
from test_figure_links import replies_in
from test_opro import script

from zero_shot_distill import Project, ZsdError
from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.prompt.search_job import OproSettings
from zero_shot_distill.study.notebook import execute_notebook, experiments_dir
from zero_shot_distill.study.search_comparison import (
    comparison_sentence,
    confirmation_figure,
    gain_figure,
    headroom_figure,
    read_searches,
    trajectory_figure,
)
from zero_shot_distill.teacher.settings import TeacherSettings


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches")
    with pytest.MonkeyPatch.context() as patch, ScriptedServer(script) as server:
        patch.setenv("OPENAI_BASE_URL", server.base_url)
        patch.setenv("OPENAI_API_KEY", "sk-scripted")
        zsd = Project("pocket_nli", TeacherSettings(model="scripted-teacher", sampling={"max_tokens": 40}), work_dir=folder)
        for proposer, n_steps in (("starters", 2), ("opro", 1), ("opro", 3)):
            zsd.search(
                "one-sentence", proposer=proposer, settings=OproSettings(iterations=n_steps, candidates=4, rows=12), n_confirmation=40
            )
        zsd.close()
    return folder


def test_one_search_of_each_proposer_is_read_and_compared(work_dir):
    searches = read_searches(work_dir, "pocket_nli")
    assert [(name, len(search.steps)) for name, search in searches.items()] == [("opro", 4), ("starters", 3)]
    said = comparison_sentence(searches)
    shown = [name for name, search in searches.items() if search.confirmation.is_shown_better]
    assert said.startswith(f"{len(shown)} of 2 searches (" if shown else "None of 2 searches found")
    assert "on 40 other rows" in said
    assert "on average than on the rows by which they were chosen" in said
    with pytest.raises(ZsdError, match="no search of task 'cqa'; begin one with zsd opro --task cqa"):
        read_searches(work_dir, "cqa")
    unconfirmed = {name: type(search)(search.about, search.steps, None) for name, search in searches.items()}
    assert comparison_sentence(unconfirmed) == "No search was confirmed: nothing is known of what was found."


def test_figures_are_drawn(work_dir):
    searches = read_searches(work_dir, "pocket_nli")
    zsd = Project("pocket_nli", model="scripted-teacher", work_dir=work_dir, offline=True)
    for figure in (
        trajectory_figure(searches),
        confirmation_figure(searches),
        gain_figure(searches),
        headroom_figure({"one-sentence": zsd.headroom("one-sentence", "can-we-tell", n=12)}),
    ):
        assert figure._repr_png_().startswith(b"\x89PNG")
    title = confirmation_figure(searches).get_suptitle()
    assert title == "Shown to be better on other rows: " + (
        ", ".join(n for n, s in searches.items() if s.confirmation.is_shown_better) or "none of them"
    )
    zsd.close()


def test_each_confirmed_point_leads_to_the_replies_that_it_was_computed_from(work_dir, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(work_dir, mine)
    asked = {"work_dir": str(mine), "task_name": str(definitions_dir() / "tasks" / "pocket_nli.yaml")}  # as a task of one's own is named
    execute_notebook(experiments_dir() / "prompt_search.ipynb", tmp_path / "executed.ipynb", asked)
    behind = Counter((one["template"], one["part"]) for one in replies_in(mine / "figures" / "prompt_search.replies.html"))
    searches = read_searches(mine, "pocket_nli")
    for figure, per_prompt in (("confirmed", 1), ("gain", 3)):
        drawn = (mine / "figures" / f"prompt_search_{figure}.svg").read_text()
        led = Counter(
            known["template"]
            for link in re.findall(r'xlink:href="(prompt_search[^"]+)"', drawn)
            if (known := dict(parse_qsl(urlsplit(unescape(link)).fragment)))["part"] == "confirmation"
        )
        expected = Counter({search.confirmation.challenger: per_prompt for search in searches.values()})
        expected += Counter({next(iter(searches.values())).incumbent: 1} if figure == "confirmed" else {})
        assert led == expected
        assert {behind[template, "confirmation"] for template in led} == {40}
    assert {n for (_, part), n in behind.items() if part == "selection"} == {12}
