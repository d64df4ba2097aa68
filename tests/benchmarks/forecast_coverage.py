"""How often the 90 % interval of `zsd forecast` contains the true total, on replies that GPT-3.5 gave. Prints a Markdown table, from one run.

    python tests/benchmarks/forecast_coverage.py            # 400 pilots for each line: about half an hour
    python tests/benchmarks/forecast_coverage.py --quick    # 20 pilots: shows that it works, measures nothing

The replies are those of the thesis (the shared data; set ZSD_SHARED_DATA, or keep them at ../shared/data beside the project). They came without usage, so
tokens are counted here: with OpenAI's cl100k_base, which is GPT-3.5's own, where `--vocabulary` names its file and tiktoken is installed (the package
litellm carries the file as 9b5ad71b2ce5302211f9c61530b329a4922fc6a4); otherwise with the tokenizer of flan-t5-small, which is a stand-in.
A pilot is drawn by giving the mix another seed; the forecast is made by the same function that the command calls, from a store with the pilot alone.
"""

import argparse
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from zero_shot_distill.annotate.forecast import forecast
from zero_shot_distill.annotate.job import AnnotationJob, ask_split
from zero_shot_distill.annotate.plan import ExplanationRate, planned_questions
from zero_shot_distill.prompt.collect import requests_for
from zero_shot_distill.prompt.mix import PromptMix
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.stats.interval import wilson
from zero_shot_distill.stats.total import Estimate
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.task import Example, Task
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.options import AskOptions
from zero_shot_distill.teacher.price import price_of
from zero_shot_distill.teacher.teacher import StoredTeacher

MODEL = "gpt-3.5-turbo"
PRICE = replace(price_of(MODEL), batch=None)  # without it, as nobody looks at the comparison here
SAMPLING = {"temperature": 0}  # without max_tokens: the interval itself, without what is added for replies up to a limit
CHAT_TOKENS = 8  # marks of OpenAI's chat format around one message
QUANTITIES = ("prompt tokens", "reply tokens", "dollars")
CountTokens = Callable[[str], int]


def shared_data() -> Path:
    "The folder of the real data; may be missing."
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("ZSD_SHARED_DATA") or beside)


def tokenizer(vocabulary: Path | None) -> tuple[CountTokens, str]:
    "How tokens are counted, and what to call it."
    if vocabulary is not None:
        import tiktoken
        from tiktoken.load import load_tiktoken_bpe

        # The pattern is that of cl100k_base; tiktoken itself would fetch the vocabulary.
        pattern = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
        encoding = tiktoken.Encoding("cl100k_base", pat_str=pattern, mergeable_ranks=load_tiktoken_bpe(str(vocabulary)), special_tokens={})
        return lambda text: len(encoding.encode_ordinary(text)), "cl100k_base, GPT-3.5's own"
    from transformers import AutoTokenizer

    from zero_shot_distill.weights.pull import pull

    t5 = AutoTokenizer.from_pretrained(pull("flan-t5-small").path)
    return lambda text: len(t5(text, truncation=False).input_ids), "flan-t5-small, a stand-in for GPT-3.5's"


@dataclass(frozen=True)
class Replies:
    "What was asked about the rows of one split, and what came back."

    task: Task
    templates: dict[str, PromptTemplate]
    examples: list[Example]  # the rows that all of the templates were asked about
    stored: dict[tuple[str, int], tuple[Request, Response]]  # (template id, row number)


def load_replies(folder: Path, template_ids: Sequence[str], count: CountTokens, n_rows: int | None = None) -> Replies:
    "The replies of the thesis to some templates of a split, as the store would hold them."
    asked = {id: _first_replies(folder / id / "responses.json") for id in template_ids}
    rows = sorted(set.intersection(*(set(replies) for replies in asked.values())))[:n_rows]
    fields = {f"prompt_{id}": f"prompt_{id}" for id in template_ids}
    task = Task(name=folder.name, fields=fields, label_column="label", metric="numeric", student_input="", splits={})
    # As the thesis reads svamp: of its replies, which rows explain themselves decides what is asked at a smaller explanation rate.
    pattern = r"(?P<rationale>.+[\s{$€])(?P<label>\d*\.?\d+)"
    templates = {id: PromptTemplate(id=id, user_message=f"{{prompt_{id}}}", reply_pattern=pattern) for id in template_ids}
    examples = [Example(str(row), {f"prompt_{id}": asked[id][row][0] for id in template_ids}, None, None) for row in rows]
    stored = {}
    for id in template_ids:
        for number, row in enumerate(rows):
            prompt, reply = asked[id][row]
            request = requests_for(templates[id], examples[number], task, MODEL, SAMPLING)[0]
            tokens = (count(prompt) + CHAT_TOKENS, count(reply))
            stored[id, number] = (
                request,
                Response(request.key, reply, "stop", *tokens, 1.0, 1, "2023-09-01T00:00:00+00:00", MODEL, via="import"),
            )
    return Replies(task, templates, examples, stored)


@functools.cache
def _first_replies(path: Path) -> dict[int, tuple[str, str]]:
    "Prompt and first reply of each row."
    replies: dict[int, tuple[str, str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        replies.setdefault(row["idx"], (row["complete_prompt"], row["response"]))
    return replies


@dataclass
class Coverage:
    "How often the truth was inside, by quantity."

    n: int = 0
    n_inside: dict[str, int] = field(default_factory=lambda: dict.fromkeys(QUANTITIES, 0))
    n_below: dict[str, int] = field(default_factory=lambda: dict.fromkeys(QUANTITIES, 0))  # the truth was below the interval
    widths: dict[str, float] = field(default_factory=lambda: dict.fromkeys(QUANTITIES, 0.0))  # summed, relative to the true totals

    def add(self, name: str, estimate: Estimate, truth: float) -> None:
        slack = 1e-9 * truth
        self.n_inside[name] += estimate.low - slack <= truth <= estimate.high + slack
        self.n_below[name] += truth < estimate.low - slack
        self.widths[name] += (estimate.high - estimate.low) / truth

    def merge(self, other: "Coverage") -> "Coverage":
        both = Coverage(self.n + other.n)
        for name in QUANTITIES:
            both.n_inside[name] = self.n_inside[name] + other.n_inside[name]
            both.n_below[name] = self.n_below[name] + other.n_below[name]
            both.widths[name] = self.widths[name] + other.widths[name]
        return both

    def cells(self) -> Iterator[str]:
        "Coverage with its Wilson interval, and the mean width."
        for name in QUANTITIES:
            share = wilson(self.n_inside[name], self.n)
            yield f"{share.value:.1%} [{share.low:.0%}, {share.high:.0%}]"
            yield f"{self.widths[name] / self.n:.1%}"


def measure(replies: Replies, mix: PromptMix, n_pilot: int, n_pilots: int, explanation_rate: float = 1.0, first_seed: int = 0) -> Coverage:
    "Forecasts from many pilots, each beside the truth."
    coverage = Coverage()
    for seed in range(first_seed, first_seed + n_pilots):
        drawn = mix.model_copy(update={"seed": seed})
        wanted = asked_by(replies, drawn, ExplanationRate(explanation_rate))
        everything = [replies.stored[question][1] for question in wanted]
        with ResponseStore(":memory:") as store:
            store.put_many(replies.stored[question] for question in _pilot(drawn, wanted, n_pilot))
            client = TeacherClient(StoredTeacher(MODEL), store, SAMPLING, AskOptions(price=PRICE))
            made = forecast(job_of(replies, drawn, ExplanationRate(explanation_rate)), client, n_pilot)
        coverage.n += 1
        coverage.add("prompt tokens", made.plan.prompt_tokens, sum(response.prompt_tokens for response in everything))
        coverage.add("reply tokens", made.plan.completion_tokens, sum(response.completion_tokens for response in everything))
        coverage.add("dollars", made.plan.cost_usd, sum(PRICE.cost_of(response) for response in everything))
    return coverage


def job_of(replies: Replies, mix: PromptMix, rate: ExplanationRate) -> AnnotationJob:
    return AnnotationJob(replies.task, {"train": replies.examples}, replies.templates, mix, MODEL, SAMPLING, rate)


def asked_by(replies: Replies, mix: PromptMix, rate: ExplanationRate) -> list[tuple[str, int]]:
    "The questions that an annotation asks."
    if rate.share == 1:
        return planned_questions(mix, len(replies.examples))
    with ResponseStore(":memory:") as store:
        store.put_many(replies.stored.values())
        return list(ask_split(job_of(replies, mix, rate), "train", TeacherClient(StoredTeacher(MODEL), store, SAMPLING)))


def _pilot(mix: PromptMix, wanted: Sequence[tuple[str, int]], n_pilot: int) -> list[tuple[str, int]]:
    "The questions that `forecast` asks: the first of each template in the order of the shuffled rows."
    place = {row: place for place, row in enumerate(mix.order(1 + max(row for _, row in wanted)))}
    chosen: dict[str, list[tuple[str, int]]] = {}
    for id, row in sorted(wanted, key=lambda question: place[question[1]]):
        if len(chosen.setdefault(id, [])) < n_pilot:
            chosen[id].append((id, row))
    return [question for questions in chosen.values() for question in questions]


def settings(data: Path, count: CountTokens) -> Iterator[tuple[str, int, Callable[[int, int], Coverage]]]:
    "What is measured: a name, the number of rows, and how."
    queries = data / "thesis" / "query-results"
    for folder, id in (("svamp/train", "2"), ("svamp/train", "1"), ("svamp/test", "2"), ("svamp/test", "1"), ("cqa/test", "3")):
        replies = load_replies(queries / folder, [id], count)
        yield f"{folder}, template {id}", len(replies.examples), functools.partial(measure, replies, PromptMix.single(id))
    both = load_replies(queries / "svamp/train", ["1", "2"], count)
    half = {"1": 0.5, "2": 0.5}
    mixes = {
        "svamp/train, labels from 1, explanations from 2": (PromptMix(label={"1": 1}, explanation={"2": 1}), 1.0),
        "the same, explanations for 40 % of the rows": (PromptMix(label={"1": 1}, explanation={"2": 1}), 0.4),
        "svamp/train, 1 and 2 for half of the rows each": (PromptMix(label=half, explanation=half), 1.0),
    }
    for name, (mix, rate) in mixes.items():
        yield name, len(both.examples), functools.partial(measure, both, mix, explanation_rate=rate)


def over_templates(data: Path, count: CountTokens, n_pilot: int, n_pilots: int) -> list[Coverage]:
    "Each of the 84 templates of cqa on its first 75 rows."
    folder = data / "thesis" / "query-results" / "cqa" / "train"
    ids = sorted((path.parent.name for path in folder.glob("*/responses.json") if len(_first_replies(path)) <= 100), key=int)
    # The same seed draws the same rows: with seeds of its own, each template has pilots of its own.
    return [
        measure(load_replies(folder, [id], count, 75), PromptMix.single(id), n_pilot, n_pilots, first_seed=place * n_pilots)
        for place, id in enumerate(ids)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 pilots instead of 400")
    parser.add_argument("--vocabulary", type=Path, help="the file of cl100k_base")
    parser.add_argument("--data", type=Path, default=shared_data())
    arguments = parser.parse_args()
    n_pilots = 20 if arguments.quick else 400
    count, name = tokenizer(arguments.vocabulary)
    print(f"Coverage of the nominal 90 % interval; in brackets its 95 % Wilson interval. Tokens by {name}; dollars by {PRICE.source}.\n")
    head = ["replies", "rows", "pilot", "pilots", *(part for name in QUANTITIES for part in (name, "width"))]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for what, n_rows, measured in settings(arguments.data, count):
        for n_pilot in (20, 40, 80):
            coverage = measured(n_pilot, n_pilots)
            print(f"| {' | '.join([what, str(n_rows), str(n_pilot), str(coverage.n), *coverage.cells()])} |", flush=True)
    for n_pilot in (20, 40):
        each = over_templates(arguments.data, count, n_pilot, max(n_pilots // 10, 2))
        total = functools.reduce(Coverage.merge, each)
        print(f"| {' | '.join([f'cqa/train, {len(each)} templates', '75', str(n_pilot), str(total.n), *total.cells()])} |", flush=True)
        shares = np.array([coverage.n_inside["reply tokens"] / coverage.n for coverage in each])
        print(
            f"\nReply tokens: half of the templates at {np.median(shares):.0%} or more, nine of ten at {np.quantile(shares, 0.1):.0%} or more.\n"
        )


if __name__ == "__main__":
    main()
