"An annotation in shards: what they ask together, their limits and their budget, and a Ray cluster of two nodes whose processes are killed."

import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from scripted_server import Latency, Scripted, ScriptedServer
from zsd_command import Project, environment, interrupt, stored, zsd

from zero_shot_distill.annotate.job import AnnotationJob, JobError, run_annotation
from zero_shot_distill.annotate.shards import ShardOptions, ask_shard, run_folder, take_in, write_shards
from zero_shot_distill.annotate.shards_ray import ask_on_ray
from zero_shot_distill.core.on_ray import ClusterError
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.prompt.mix import PromptMix
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.task import Example, load_task
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.options import AskOptions
from zero_shot_distill.teacher.price import Price
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, StoredTeacher

PRICE = Price(1.0, 10.0, "test")
QUIET = Progress(quiet=True)
LIMITS = RequestLimits()


def says_neutral(body: dict, n: int) -> Scripted:
    return Scripted(text="Neutral: nobody said so here.", prompt_tokens=60, completion_tokens=10)


def job_of(n: int, **changes) -> AnnotationJob:
    "An annotation of made-up rows."
    task = load_task("pocket_nli")
    rows = [Example(f"row-{i}", {"premise": f"Number {i} waits.", "hypothesis": "Somebody waits."}, "neutral", None) for i in range(n)]
    template = PromptTemplate(
        id="ask", user_message="{premise}\n{hypothesis}\nEntailment, neutral or contradiction, and why?", read="label-first"
    )
    template = template.model_copy(update=changes)
    sampling = {"temperature": 0, "max_tokens": 20}
    return AnnotationJob(task, {"train": rows}, {"ask": template}, PromptMix.single("ask"), "some-model", sampling)


def client_of(job: AnnotationJob, server: ScriptedServer, store: ResponseStore, limits: RequestLimits = LIMITS) -> TeacherClient:
    return TeacherClient(HostedTeacher(job.model, server.base_url, "no-key", limits), store, job.sampling, AskOptions(PRICE))


def ask_in_threads(job: AnnotationJob, client: TeacherClient, work_dir: Path, n_shards: int, budget_usd: float | None = None) -> None:
    "Ask all shards side by side, as a cluster of one machine would."
    with run_folder(work_dir, job.id) as folder:
        shards = write_shards(job, client, folder, n_shards)
        options = ShardOptions(client.teacher.shared_by(1), len(shards), len(shards), client.options.price, budget_usd)
        with ThreadPoolExecutor(len(shards)) as pool:
            assert list(pool.map(lambda shard: ask_shard(shard, options), shards)) == [None] * len(shards)
        for shard in shards:
            take_in(shard, client.store)


def test_shards_together_keep_to_one_limit_and_ask_each_row_once(tmp_path):
    job, a_second = job_of(60), 30
    with ScriptedServer(says_neutral) as server, ResponseStore(tmp_path / "responses.sqlite") as store:
        client = client_of(job, server, store, RequestLimits(requests_per_minute=60 * a_second, tokens_per_minute=10**6))
        began_s = time.monotonic()  # a busy machine may notice the first question late
        ask_in_threads(job, client, tmp_path, 4)
        # A second's worth may go at once, and each shard may be one question ahead.
        assert len(server.bodies) <= (server.last_s - began_s + 1) * a_second + 4
        report = run_annotation(job, client, tmp_path, QUIET)
        assert [entry.completed for entry in server.ledger.values()] == [1] * 60
    assert (report.splits["train"].n_labels, report.n_rows_left) == (60, 0)
    assert not list((tmp_path / "shards").iterdir())


def test_shards_together_keep_to_one_budget(tmp_path):
    job = job_of(40)
    with ScriptedServer(says_neutral) as server, ResponseStore(tmp_path / "responses.sqlite") as store:
        client = client_of(job, server, store).within(0.012)  # a reply costs 0.00016 $, and at worst some 0.0005 $
        ask_in_threads(job, client, tmp_path, 4, client.options.budget.cap_usd / 4)
        spent = 1e-6 * sum(entry.prompt_tokens + 10 * entry.completion_tokens for entry in server.ledger.values())
        assert 0 < spent <= 0.012
        run_annotation(job, client, tmp_path, QUIET)
        assert [entry.completed for entry in server.ledger.values()] == [1] * 40
        assert client.options.budget.spent_usd <= 0.012


def test_a_shard_asks_without_a_schema_where_the_server_takes_none(tmp_path):
    job = job_of(12, reply_schema=("rationale", "label"))
    with (
        ScriptedServer(says_neutral, refuses=("response_format",)) as server,
        ResponseStore(tmp_path / "responses.sqlite") as store,
    ):
        client = client_of(job, server, store)
        ask_in_threads(job, client, tmp_path, 2)
        assert len(store) == 12
        n_asked = server.statuses[200]
        run_annotation(job, client, tmp_path, QUIET)
        assert server.statuses[200] == n_asked == 12


def kill_one(server: ScriptedServer, n_rows: int, killed: list[int]) -> None:
    "Kill a process that asks, when a third is answered."
    while sum(entry.completed for entry in server.ledger.values()) < n_rows / 3:
        time.sleep(0.05)
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0] == "ray::ask_shard":
            process.kill()
            killed.append(process.pid)
            return


@pytest.mark.slow
def test_a_cluster_of_two_nodes_asks_each_row_once_though_a_process_is_killed(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="pip install 'zero_shot_distill[ray]' to run this")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    job, n_at_once = job_of(3000), 32
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        with (
            ScriptedServer(says_neutral, latency=Latency(0.05)) as server,
            ResponseStore(tmp_path / "responses.sqlite") as store,
        ):
            killed: list[int] = []
            killer = threading.Thread(target=kill_one, args=(server, 3000, killed))
            killer.start()
            client = client_of(job, server, store, RequestLimits(n_parallel=n_at_once))
            ask_on_ray(job, client, tmp_path, 4, QUIET)
            killer.join()
            assert killed
            assert len(store) == 3000  # nothing is left for `run_annotation` to ask
            n_sent = len(server.bodies)
            report = run_annotation(job, client, tmp_path, QUIET)
            assert len(server.bodies) == n_sent
            answered = Counter(entry.completed for entry in server.ledger.values())
            assert answered[1] + answered[2] == 3000
            assert n_sent - 3000 <= n_at_once  # asked again: what was under way in the process that was killed
    finally:
        cluster.shutdown()
    assert report.splits["train"].n_labels == 3000
    assert not list((tmp_path / "shards").iterdir())


def test_without_ray_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    job = job_of(2)
    with ResponseStore(tmp_path / "responses.sqlite") as store, HostedTeacher(job.model, "http://127.0.0.1:9/v1", "no-key") as teacher:
        with pytest.raises(ClusterError, match=r"ray is not installed; pip install 'zero_shot_distill\[ray\]'"):
            ask_on_ray(job, TeacherClient(teacher, store, job.sampling), tmp_path, 4, QUIET)
        with pytest.raises(JobError, match="a hosted model"):
            ask_on_ray(job, TeacherClient(StoredTeacher(job.model), store, job.sampling), tmp_path, 4, QUIET)


def asked_by_command(folder: Path, n: int) -> list[str]:
    "Write rows, and give the arguments that annotate them."
    rows = [{"id": str(i), "premise": f"Number {i} waits.", "hypothesis": "Somebody waits.", "label": "neutral"} for i in range(n)]
    Project(folder, rows={"train": rows, "valid": [], "test": []}).write()
    return ["annotate", "--task", "my_task.yaml", "--prompts", "my_prompts.yaml", "--mix", "tell", "--rows", str(n), "--model", "m"]


@pytest.mark.slow
def test_the_command_goes_on_after_ctrl_c_with_ray_or_without(tmp_path):
    pytest.importorskip("ray", reason="pip install 'zero_shot_distill[ray]' to run this")
    arguments = asked_by_command(tmp_path, 2000)
    with ScriptedServer(says_neutral, latency=Latency(0.3)) as server:
        env = environment(OPENAI_API_KEY="x", OPENAI_BASE_URL=server.base_url)

        def is_begun(_: psutil.Process) -> bool:
            return server.statuses[200] > 500

        stopped = interrupt(tmp_path, is_begun, *arguments, "--engine", "ray", "--shards", "2", env=env, preload="none")
        assert "the same command goes on" in stopped.last_line
        assert list((tmp_path / "zsd-work" / "shards").iterdir())
        done = zsd(tmp_path, *arguments, env=env, preload="none")
        assert done.status == 0, done.err
        assert "replies taken over from a run that was stopped" in done.err
        assert len(stored(tmp_path)) == 2000
        assert [entry.completed for entry in server.ledger.values()] == [1] * 2000


@pytest.mark.slow
def test_the_command_is_killed_and_the_cluster_lives_on(tmp_path):
    pytest.importorskip("ray", reason="pip install 'zero_shot_distill[ray]' to run this")
    from ray.cluster_utils import Cluster

    arguments = [*asked_by_command(tmp_path, 3000), "--engine", "ray", "--shards", "2"]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        with ScriptedServer(says_neutral, latency=Latency(0.3)) as server:
            env = environment(OPENAI_API_KEY="x", OPENAI_BASE_URL=server.base_url, RAY_ADDRESS=cluster.address)

            def is_begun(_: psutil.Process) -> bool:
                return server.statuses[200] > 500

            assert interrupt(tmp_path, is_begun, *arguments, by=signal.SIGKILL, env=env, preload="none").status == -signal.SIGKILL
            done = zsd(tmp_path, *arguments, env=env, preload="none")
            assert done.status == 0, done.err
            assert len(stored(tmp_path)) == 3000
            answered = Counter(entry.completed for entry in server.ledger.values())
            assert answered[1] + answered[2] == 3000
            assert answered[2] <= 256  # under way when the command was killed, at most
    finally:
        cluster.shutdown()
