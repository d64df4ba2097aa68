"""Let DSPy's GEPA and promptolution's CAPO search a prompt as `opro.py` compares searches. Prints which of the two are installed.

    python tests/benchmarks/opro_peers.py
    python tests/benchmarks/opro.py --proposers opro,gepa,capo

Neither library is installed with this project (dspy brings litellm, of which a release carried a credential stealer in March 2026: give them an environment of their own);
`pip install dspy promptolution` into an environment that has this project, too (written against dspy 3.4.1 with gepa 0.1.4,
and promptolution 2.3.0). Both propose and choose by themselves, with their own settings; what they ask goes through `PeerSearch`, which asks our teacher:

- the same templates to begin with, the same selection rows, the same sampling, store and reader of replies; what they write is completed by the row and the way to
  reply as our proposals are, and refused for the same reasons, without a question, as a prompt that is wrong for every row;
- the same number of questions. One that is asked again within a search is read from the store and not counted again, as ours are not. A round that does not
  fit is not asked and ends the search; the confirmation of three prompts is kept back. The best two that a peer names are confirmed beside the incumbent;
- the same rules for a prompt, told in the place where each library takes them: where the row stands, and how to reply.

GEPA begins with the incumbent and reflects on selection rows, three at a time, as it also scores on them. It asks for its proposals in JSON, by a schema where
the server takes one; a reply that is no such JSON counts as one without a prompt.

CAPO crosses the texts of all templates that the search begins with. Its races take a fifth of the selection rows a round; the questions that ask its two best on
all of these rows are kept back. A step that does not fit is lost: the prompts before it are its result. It writes no examples into a prompt (`upper_shots=0`),
because a prompt that quotes rows is refused here.
"""

import argparse
import importlib
import importlib.metadata
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from types import SimpleNamespace
from typing import Any, ClassVar

from zero_shot_distill.core.definition import ZsdError
from zero_shot_distill.core.progress import OnProgress, Progress
from zero_shot_distill.prompt.candidate import Refusal, normal_text, refusal_of
from zero_shot_distill.prompt.collect import collect_replies, run_experiment
from zero_shot_distill.prompt.confirm import N_CONTENDERS, confirmation_of
from zero_shot_distill.prompt.headroom import gain_split
from zero_shot_distill.prompt.objective import SearchScore, search_score
from zero_shot_distill.prompt.replies import ReadReply
from zero_shot_distill.prompt.search_job import SearchJob, plan_search
from zero_shot_distill.prompt.search_result import PromptSearch, SearchEnd, StopReason
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.prompt.trajectory import Candidate, SearchError, Step, ranked
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.task.task import Example
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.completion import ErrorKind
from zero_shot_distill.teacher.options import Asked
from zero_shot_distill.teacher.price import total_usage


class QuestionsUsedUp(Exception):
    "Report that a round of questions does not fit any more; none of it was asked."


class PeerSearch:
    "Ask what another library's search asks, count it, and refuse what does not fit into the budget."

    def __init__(
        self,
        name: str,  # of the peer
        job: SearchJob,  # with a budget of questions
        client: TeacherClient,  # of the teacher whose prompt is searched
        optimiser: TeacherClient,  # of the one that proposes
        on_progress: OnProgress = lambda done, total, note="": None,
    ):
        self.name, self.job, self.client, self.optimiser, self.on_progress = name, job, client, optimiser, on_progress
        self.limit = job.budget.queries - plan_search(job, client, optimiser).confirmation.questions
        self.kept = 0  # questions of these that the search leaves over
        self.n_proposals = 0  # questions to the optimiser
        self.is_over = False  # a round did not fit
        self.error: Exception | None = None  # the first one: both libraries go on after an error
        self._replies: dict[tuple[str, str], ReadReply] = {}  # by template and row
        self._proposed: dict[str, Response] = {}
        self._shown: list[Example] = []
        self._is_shown = False  # to the optimiser, by now
        self._takes_schema = True  # as long as the optimiser does not say otherwise
        self.begin = self._begin()
        self._incumbent = ranked([self.begin], job.objective)
        self.candidates: dict[str, Candidate] = {}  # by normal text; those that the search begins with first, the best of them foremost
        for one in self._incumbent:
            self.candidates.setdefault(normal_text(one.text), one)
        self._n_begun = len(self.candidates)

    def _begin(self) -> Step:
        "Score the templates that all searches begin with."
        rows = self.job.rows.selection
        self._ask_new({(id, row.id): (template, row) for id, template in self.job.templates.items() for row in rows})
        found = {id: self._ask(template, rows) for id, template in self.job.templates.items()}
        form, templates = self.job.form, self.job.templates
        return Step(
            0, tuple(Candidate(id, form.text_of(templates[id]), None, templates[id], self._score(reads)) for id, reads in found.items())
        )

    @property
    def n_questions(self) -> int:
        "Count what was asked so far, of the teacher and of the optimiser."
        return len(self._replies) + self.n_proposals

    @property
    def texts(self) -> list[str]:
        "List what the search begins with, the incumbent first."
        return [one.text for one in list(self.candidates.values())[: self._n_begun]]

    def candidate(
        self,
        text: str,  # as the peer writes it
    ) -> Candidate:
        "Complete a text to a template as our proposals are completed, or refuse it; the same words are the same candidate."
        job = self.job
        text = job.form.complete(job.form.cut(text.strip()))
        key = normal_text(text)
        if key not in self.candidates:
            id = f"{self.name}-{len(self.candidates) - self._n_begun + 1}"
            refusal = refusal_of(text, job.task, self._shown, (), job.settings.most_characters)
            template = None if refusal else job.form.template(id, text, f"found by {self.name}")
            self.candidates[key] = Candidate(id, text, refusal, template)
        return self.candidates[key]

    def refuse(self, refusal: Refusal) -> None:
        "Count a proposal of which no text could be read."
        id = f"{self.name}-{len(self.candidates) - self._n_begun + 1}"
        self.candidates[id] = Candidate(id, "", refusal)

    def ask(
        self,
        pairs: Sequence[tuple[str, Example]],  # texts, each with a row
    ) -> list[ReadReply | None]:  # None: the text is refused; `QuestionsUsedUp` where the new ones among them do not fit
        "Ask about rows, all in one round."
        with self._kept_error():
            chosen = [(self.candidate(text), row) for text, row in pairs]
            asked = {(one.id, row.id): (one.template, row) for one, row in chosen if one.template}
            self._ask_new(asked)
            return [self._replies.get((one.id, row.id)) for one, row in chosen]

    def show(self, row: Example) -> None:
        "Note that the next proposal is made in the sight of a row and its right answer, which it may not quote."
        self._shown = [row] if self._is_shown else [*self._shown, row]
        self._is_shown = False

    def propose(
        self,
        questions: Sequence[Sequence[Mapping[str, str]]],  # chat messages of each
        response_format: Mapping[str, Any]
        | None = None,  # a JSON schema of the replies; a server that takes none is asked without, as for our templates
    ) -> list[str]:  # empty where there was no reply; `QuestionsUsedUp` where they do not fit
        "Ask the optimiser, all in one round; a seed makes each request its own, so that it is found again."
        with self._kept_error():
            self._take(len(questions))
            ordinals = range(self.n_proposals, self.n_proposals + len(questions))
            seeds = [random.Random(f"{self.job.seed} {self.name} {ordinal}").getrandbits(31) for ordinal in ordinals]
            asked, requests = self._ask_optimiser(
                questions, seeds, {"response_format": response_format} if response_format and self._takes_schema else {}
            )
            if any(failure.kind is ErrorKind.SCHEMA for failure in asked.failures.values()):
                self._takes_schema = False
                asked, requests = self._ask_optimiser(questions, seeds, {})
            self.n_proposals += len(requests)
            self.on_progress(self.n_questions, self.limit, next(map(str, asked.failures.values()), ""))
            self._is_shown = True
            self._proposed |= asked.responses
            found = [asked.responses.get(request.key) for request in requests]
            return [response.text if response else "" for response in found]

    def _ask_optimiser(
        self, questions: Sequence[Sequence[Mapping[str, str]]], seeds: Sequence[int], changes: Mapping[str, Any]
    ) -> tuple[Asked, list[Request]]:
        "Ask for proposals with sampling parameters that are other than the optimiser's."
        sampling, model = {**self.optimiser.sampling, **changes}, self.optimiser.model
        requests = [Request.build(model, said, **{**sampling, "seed": seed}) for said, seed in zip(questions, seeds, strict=True)]
        return self.optimiser.ask(requests), requests

    def best(
        self,
        texts: Sequence[str],  # that the peer names, in its order of preference
    ) -> list[Candidate]:  # scored on all selection rows; fewer where it names fewer of its own
        "Ask the peer's best prompts on the selection rows that they were not asked on yet."
        self.kept, self.is_over = 0, False
        own = {one.id: one for one in map(self.candidate, texts) if one.template and one.id not in self.job.templates}
        found = []
        for one in own.values():
            try:
                reads = self._ask(one.template, self.job.rows.selection)
            except QuestionsUsedUp:
                continue
            found.append(Candidate(one.id, one.text, None, one.template, self._score(reads)))
        return found[: N_CONTENDERS - 1]

    def step(self, best: Sequence[Candidate]) -> Step:
        "Put all that the peer did into one step; what is not the score of one of its best prompts counts with the proposals."
        scored = {one.id: one for one in (*self.begin.candidates, *best)}
        others = [*self._proposed.values()]
        others += [reply.response for (id, _), reply in self._replies.items() if id not in scored and reply.response]
        usage = total_usage({response.key: response for response in others}.values(), self.client.options.price)
        n = self.n_questions - sum(one.score.n for one in scored.values())
        proposed = list(self.candidates.values())[self._n_begun :]
        candidates = tuple(scored.get(one.id, one) for one in proposed)
        return Step(1, candidates, n, usage.prompt_tokens, usage.completion_tokens, usage.cost_usd)

    def _score(self, reads: Sequence[ReadReply]) -> SearchScore:
        return search_score(reads, self.client.options.price, self.job.task.is_right)

    def counts(self, read: ReadReply | None) -> bool:
        "Tell whether a reply counts by the objective of the search."
        return read is not None and read.reply is not None and self.job.objective.value(self._score([read])) == 1.0

    def _ask(self, template: PromptTemplate, rows: Sequence[Example]) -> list[ReadReply]:
        "Ask one template about rows."
        self._ask_new({(template.id, row.id): (template, row) for row in rows})
        return [self._replies[template.id, row.id] for row in rows]

    def _ask_new(self, asked: Mapping[tuple[str, str], tuple[PromptTemplate, Example]]) -> None:
        "Ask what was not asked in this search yet."
        new = {key: pair for key, pair in asked.items() if key not in self._replies}
        if new:
            self._take(len(new))
            replies = collect_replies(list(new.values()), self.job.task, self.client)
            self._replies |= dict(zip(new, replies, strict=True))
            self.on_progress(self.n_questions, self.limit)

    def _take(self, n: int) -> None:
        "End the search where so many questions do not fit."
        self.is_over = self.is_over or self.n_questions + n > self.limit - self.kept
        if self.is_over:
            raise QuestionsUsedUp

    @contextmanager
    def _kept_error(self) -> Iterator[None]:
        "Keep an error that the library would take for a bad prompt."
        try:
            yield
        except QuestionsUsedUp:
            raise
        except Exception as error:
            self.error = self.error or error
            raise


def rules_of(job: SearchJob) -> str:
    "Tell what our proposers tell, too: what the prompt is for, where the row stands, and which way to reply is there already."
    task, names = job.task, ", ".join(f"{{{name}}}" for name in job.task.fields)
    answers = f"The right answer is one of: {', '.join(task.labels)}. " if task.labels else ""
    form = job.form.words.replace("{{", "{").replace("}}", "}")
    return (
        f"{task.description.strip()} {answers}The prompt is used for other rows, too: it must not quote any, and it must not give an answer away. "
        f"The row is put below the prompt; to place it itself, the prompt has {names}, with the braces, each once. "
        f"Below every prompt this stands already, so leave it out: {form}"
    )


def _library(name: str) -> Any:
    "Import a library that the project does not need, quietly; `SearchError` says how to install it."
    os.environ.setdefault("TQDM_DISABLE", "1")  # we draw a bar of our own
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise SearchError(f"{name} cannot be imported ({error}): pip install {name}") from None
    logging.getLogger(name).setLevel(logging.CRITICAL)  # a refused prompt is no error, and neither is the end of the questions
    return found


# DSPy's GEPA


class _NoBar:
    "Stand in for a progress bar of tqdm, and draw nothing."

    _instances: ClassVar[set[Any]] = set()

    def __init__(self, *args: Any, **kwargs: Any):
        self.update = self.close = self.set_description = lambda *args: None


_MOST_REPEATED = 20  # metric calls for each question, most of them repetitions: the search ends where nothing new is asked any more


def search_with_gepa(peer: PeerSearch) -> list[str]:  # texts, by their score on the selection rows
    "Let GEPA evolve the incumbent's text."
    dspy = _library("dspy")
    from dspy.lm15 import Message, Response, Usage
    from dspy.teleprompt.gepa.instruction_proposal import InstructionProposer
    from dspy.utils import parallelizer

    parallelizer.tqdm = SimpleNamespace(tqdm=_NoBar)  # which draws a bar for every three questions, whatever it is told

    job, task = peer.job, peer.job.task
    rows = {tuple(row.fields[name] for name in task.fields): row for row in job.rows.selection}

    def row_of(fields: Mapping[str, str]) -> Example:
        return rows[tuple(fields[name] for name in task.fields)]

    class Optimiser:
        "Answer GEPA's questions for a new prompt, as an engine of DSPy."

        supports_response_schema = True
        supported_params = ("response_format",)

        def complete(self, request: Any) -> Any:
            messages = [{"role": message.role, "content": message.text or ""} for message in request.messages]
            if request.system:
                messages.insert(0, {"role": "system", "content": request.system})
            schema = request.config.response_format and {
                name: value for name, value in request.config.response_format.items() if name != "type"
            }
            (text,) = peer.propose([messages], schema and {"type": "json_schema", "json_schema": {"name": "reply", **schema}})
            return Response(None, request.model, Message.assistant(text), "stop", Usage(input_tokens=0, output_tokens=0, total_tokens=0))

    class Teacher(dspy.Adapter):
        "Ask the teacher a prompt about a row, in the way of our templates."

        def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Mapping[str, str]) -> list[dict[str, str]]:
            (read,) = peer.ask([(signature.instructions, row_of(inputs))])
            label = read.reply.label if read and read.reply else ""
            reply = read.response.text if read and read.response else ""
            return [{"reply": reply, "read_label": label, "explained": "yes" if read and read.has_rationale else "no"}]

    class Proposer(InstructionProposer):
        "Count the proposals of which no prompt could be read."

        def __call__(self, *args: Any, **kwargs: Any) -> dict[str, str]:
            try:
                return super().__call__(*args, **kwargs)
            except (ValueError, dspy.utils.exceptions.AdapterParseError):
                peer.refuse(Refusal.NO_MARKS)
                raise

    def metric(gold: Any, pred: Any, trace: Any = None, pred_name: str | None = None, pred_trace: Any = None) -> Any:
        row = row_of(gold)
        if pred_name:  # what is said here is shown to the optimiser
            peer.show(row)
        is_right, is_explained = task.is_right(pred.read_label or None, row.label), pred.explained == "yes"
        said = (
            f"Wrong: the right answer is {row.label}."
            if pred.read_label
            else f"No answer could be read in the reply; right is {row.label}."
        )
        if is_right:
            said = (
                "Right."
                if is_explained or job.objective.goal == "accuracy"
                else "The answer is right, but the reply gives no reason for it."
            )
        return dspy.Prediction(score=float(is_right and (is_explained or job.objective.goal == "accuracy")), feedback=said)

    fields = {name: (str, dspy.InputField()) for name in task.fields}
    fields |= {name: (str, dspy.OutputField()) for name in ("reply", "read_label", "explained")}
    examples = [dspy.Example(**row.fields).with_inputs(*task.fields) for row in job.rows.selection]
    lm = dspy.LM("optimiser", engine=Optimiser(), cache=False, num_retries=0)
    with dspy.context(lm=lm, adapter=Teacher(), disable_history=True):
        gepa = dspy.GEPA(
            metric,
            max_metric_calls=_MOST_REPEATED * peer.limit,
            reflection_lm=lm,
            instruction_proposer=Proposer(additional_instructions=rules_of(job)),
            num_threads=1,  # questions are counted in the same order in every run
            track_stats=True,
            seed=job.seed,
            gepa_kwargs={"stop_callbacks": [lambda state: peer.is_over or peer.error is not None]},
        )
        found = gepa.compile(dspy.Predict(dspy.Signature(fields, peer.texts[0])), trainset=examples, valset=examples).detailed_results
    order = sorted(range(len(found.candidates)), key=lambda place: -found.val_aggregate_scores[place])
    return [found.candidates[place].signature.instructions for place in order]


# promptolution's CAPO

_N_BLOCKS = 5  # into which the selection rows are divided; a race asks one more of them in each round
_ONE_AT_A_TIME = Lock()  # CAPO draws from Python's own random numbers, which all threads share


def search_with_capo(peer: PeerSearch) -> list[str]:  # texts of its last population, the best first
    "Let CAPO cross, rephrase and race the texts that the search begins with."
    _library("promptolution")
    import pandas as pd
    from promptolution.llms.base_llm import BaseLLM
    from promptolution.optimizers.capo import CAPO
    from promptolution.predictors.base_predictor import BasePredictor
    from promptolution.tasks.reward_tasks import RewardTask

    job, rows = peer.job, {row.id: row for row in peer.job.rows.selection}
    if len(peer.texts) < 2:
        raise SearchError("CAPO crosses two prompts, and the search begins with one; begin with more templates")

    class Optimiser(BaseLLM):
        "Answer CAPO's questions for new prompts."

        def _get_response(self, prompts: list[str], system_prompts: list[str]) -> list[str]:
            return peer.propose([[{"role": "user", "content": prompt}] for prompt in prompts])

    class Teacher(BasePredictor):
        "Ask the teacher prompts about rows, in the way of our templates; what CAPO calls a prediction is whether the reply counts."

        def predict(self, prompts: list[str], xs: list[str], system_prompts: Any = None) -> tuple[list[str], list[str]]:
            reads = peer.ask([(prompt, rows[x]) for prompt, x in zip(prompts, xs, strict=True)])
            said = [f"{x}\n{read.response.text if read and read.response else ''}" for x, read in zip(xs, reads, strict=True)]
            return ["1" if peer.counts(read) else "0" for read in reads], said

        def _extract_preds(self, preds: list[str]) -> list[str]:
            raise NotImplementedError

    n_in_block = max(1, len(rows) // _N_BLOCKS)
    frame = pd.DataFrame({"x": list(rows), "y": [row.label for row in rows.values()]})
    task = RewardTask(
        frame, float, y_column="y", task_description=rules_of(job), n_subsamples=n_in_block, eval_strategy="sequential_block", seed=job.seed
    )
    llm = Optimiser()
    peer.kept = (N_CONTENDERS - 1) * len(rows)
    with _ONE_AT_A_TIME:
        random.seed(job.seed)
        capo = CAPO(Teacher(llm), task, llm, peer.texts, upper_shots=0, max_n_blocks_eval=task.n_blocks, df_few_shots=frame[:0])
        prompts = capo.optimize(peer.limit)  # steps: each asks for proposals, so that the questions end before
    if not peer.is_over and peer.error is None:
        raise SearchError("CAPO ended by an error of its own before the questions were used up; promptolution's log says which")
    return [str(prompt) for prompt in prompts]


# Both

PEERS: dict[str, Callable[[PeerSearch], list[str]]] = {"gepa": search_with_gepa, "capo": search_with_capo}


def search_with_peer(
    name: str,  # one of `PEERS`
    job: SearchJob,  # as our own searches have it
    client: TeacherClient,
    optimiser: TeacherClient,
    progress: Progress,
) -> PromptSearch:  # `SearchError` where the library is not there, or the budget is below one of our steps
    "Search a prompt with another library, and confirm its best ones beside the incumbent, as `search_prompt` does with ours."
    with progress.bar(f"{name}: asking") as on_progress:
        peer = PeerSearch(name, job, client, optimiser, on_progress)
        texts = PEERS[name](peer)
        if peer.error:
            raise peer.error if isinstance(peer.error, ZsdError) else SearchError(f"{name}: {peer.error!r}")
        why = StopReason.BUDGET_QUERIES if peer.is_over else StopReason.EXHAUSTED
        best = peer.best(texts)
    steps = [peer.begin, peer.step(best)]
    incumbent = ranked(steps[:1], job.objective)[0].id
    contenders = {one.id: one.template for one in ranked(steps, job.objective) if one.id == incumbent or one in best}
    with progress.bar(f"confirming {len(contenders)} templates", n_parallel=client.n_at_once) as on_progress:
        replies = run_experiment(job.task, contenders, job.rows.confirmation, client, on_progress)
    confirmation = confirmation_of(job.task, replies, incumbent, client.options.price, job.objective.goal)
    other = confirmation.challenger
    gain = gain_split(job.task, replies[incumbent], replies[other], job.objective.goal) if other else None
    about = job.about(client, optimiser) | {"proposer": name}
    return PromptSearch(about, steps, SearchEnd(why.name, confirmation, gain))


def main() -> None:
    "Print which peers can run."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    for peer, libraries in {"gepa": ("dspy", "gepa"), "capo": ("promptolution",)}.items():
        try:
            print(f"{peer}: {', '.join(f'{name} {importlib.metadata.version(name)}' for name in libraries)}")
        except importlib.metadata.PackageNotFoundError as error:
            print(f"{peer}: {error.name} is not installed; pip install {libraries[0]}")


if __name__ == "__main__":
    main()
