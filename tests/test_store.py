"""The store under real conditions: several processes, a killed writer, a full disk, a folder without write access, damaged files."""

import multiprocessing
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from zero_shot_distill.store.database import SCHEMA_VERSION, StoreError, StoreFile
from zero_shot_distill.store.maintenance import store_info, verify_store
from zero_shot_distill.store.read_only import ReadOnlyStore
from zero_shot_distill.store.request import AttemptResult, Request, Response
from zero_shot_distill.store.salvage import salvage_store
from zero_shot_distill.store.store import DamagedReply, ResponseStore

# Real processes of their own, as two `zsd` commands are: nothing is inherited.
SPAWN = multiprocessing.get_context("spawn")
# Only a fork can lower its own rights or limits after everything is imported.
FORK = multiprocessing.get_context("fork")
# For scripts: they find this folder and the package as we do, installed or not.
HERE = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}


def a_request(n: int) -> Request:
    return Request.build("some-model", [{"role": "user", "content": f"question {n}"}], temperature=0)


def a_response(request: Request, text: str = "an answer") -> Response:
    return Response(request.key, text, "stop", 12, 3, 0.5, 1, "2026-01-01T12:00:00+00:00", "some-model")


def put_many(path: Path, numbers: range, text: str, acknowledge: bool = False) -> None:
    with ResponseStore(path) as store:
        for n in numbers:
            request = a_request(n)
            store.put(request, a_response(request, text))
            if acknowledge:
                print(n, flush=True)


def in_child(work, *arguments) -> None:
    "Run `work` in a forked child and fail with it."
    child = FORK.Process(target=work, args=arguments)
    child.start()
    child.join(300)
    assert child.exitcode == 0


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


def test_a_store_of_schema_2_goes_on(tmp_path):
    """`stores/schema_2.sqlite` was written by the code before schema 3: eight requests, of which two have replies (one of them after a
    first reply that was cut off), one timed out, one was refused its schema, one is in a provider's batch, and three were never sent."""
    old = Path(__file__).parent / "stores" / "schema_2.sqlite"
    path = Path(shutil.copy(old, tmp_path / "responses.sqlite"))
    requests = [Request.build("some-model", [{"role": "user", "content": f"question {n}"}], temperature=0, max_tokens=20) for n in range(8)]
    keys = [request.key for request in requests]
    assert verify_store(path).n_faults == 0
    with ReadOnlyStore(path) as store:
        assert store_info(store).total.n_responses == 2
    with ResponseStore(path) as store, ResponseStore(path):
        assert {key: reply.text for key, reply in store.get_many(keys).items()} == {keys[0]: "an answer", keys[1]: "a whole answer"}
        assert [reply.text for reply in store.superseded(keys)] == ["cut"]
        assert store.failures(keys) == {keys[2]: "no reply within 120 s", keys[3]: "the server takes no JSON schema: no"}
        assert store.failure_kinds(keys) == {keys[3]: "schema"}
        spending = store.spending(keys)
        assert {keys.index(key): (len(cost.replies), cost.n_open, cost.batch_id) for key, cost in spending.items()} == {
            0: (1, 0, None),
            1: (2, 0, None),
            2: (0, 1, None),
            3: (0, 0, None),
            4: (0, 1, "0123456789abcdef"),
        }
        claim = store.exchange(wanted=requests)
        assert (claim.taken, claim.held) == ([*requests[2:4], *requests[5:]], {keys[4]: "0123456789abcdef"})
        store.exchange([AttemptResult(requests[3], None, "HTTP 503", charged=False, failure_kind="again")])
        assert store.failure_kinds(keys) == {keys[3]: "again"}
        assert set(store.changes_since(0)[1]) == {keys[n] for n in (2, 3, 5, 6, 7)}
    assert integrity(path) == "ok"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    new = tmp_path / "new.sqlite"
    assert salvage_store(path, new).n_responses == 2
    with ResponseStore(new) as store:
        assert store.failure_kinds(keys) == {keys[3]: "again"}


def change(path: Path, what: str, key: str) -> None:
    "Change a column behind the store's back, as a damaged disk does."
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE responses SET {what} WHERE key = ?", [key])


def test_a_changed_reply_is_given_to_nobody(tmp_path):
    "It is named with the command that mends it; the replies that came meanwhile are stored, and the question can be asked again afterwards."
    path = tmp_path / "my responses.sqlite"
    put_many(path, range(3), "an answer")
    keys = [a_request(n).key for n in range(5)]
    change(path, "text = 'on answer'", keys[1])
    told = rf"reply {keys[1][:12]} changed on the disk .* `zsd store verify --store '{path}'` .*`zsd store salvage '{path}' --to NEW`"
    with ResponseStore(path) as store:
        for read in (lambda: store.get(keys[1]), lambda: list(store.missing([a_request(1)], {"empty"}))):
            with pytest.raises(DamagedReply, match=told):
                read()
        assert set(store.get_many([keys[0], keys[2]])) == {keys[0], keys[2]}
        store.exchange(wanted=[a_request(3)])
        with pytest.raises(DamagedReply, match=told):
            store.exchange([AttemptResult(a_request(3), a_response(a_request(3)))], [a_request(1), a_request(4)])
        assert store.get(keys[3]).text == "an answer"
    new = tmp_path / "new.sqlite"
    assert salvage_store(path, new).n_responses == 3
    with ResponseStore(new) as store:
        claim = store.exchange(wanted=map(a_request, range(4)))
        assert (claim.taken, set(claim.stored)) == ([a_request(1)], {keys[0], keys[2], keys[3]})


def test_a_reply_that_comes_replaces_a_changed_one(tmp_path):
    path, request = tmp_path / "responses.sqlite", a_request(0)
    put_many(path, range(1), "an answer")
    with ResponseStore(path) as store:
        change(path, "text = 'on answer'", request.key)
        settled = store.exchange([AttemptResult(request, a_response(request, "a new answer"))]).settled
        assert settled[request.key].text == store.get(request.key).text == "a new answer"


def test_a_broken_letter_is_told(tmp_path):
    "Bytes that are no UTF-8, in a row with a checksum and in one of an earlier version."
    path, key = tmp_path / "responses.sqlite", a_request(1).key
    put_many(path, range(3), "an answer")
    for what in ("text = CAST(x'616eff' AS TEXT)", "checksum = NULL", "request = CAST(x'616eff' AS TEXT)"):
        change(path, what, key)
        told = rf"^{path}: is damaged; `zsd store salvage {path} --to NEW` .* \(a text is no UTF-8\)$"
        with ResponseStore(path) as store, pytest.raises(StoreError, match=told):
            (store.requests_of if "request" in what else store.get_many)([key])
        assert verify_store(path).n_faults == 1


def test_rows_of_an_earlier_version_get_a_checksum(tmp_path, monkeypatch):
    "A thousand at an opening here; one with a fault gets none, and the others keep what they say."
    path, requests = tmp_path / "responses.sqlite", [a_request(n) for n in range(1200)]
    with ResponseStore(path) as store:
        store.put_many((request, a_response(request)) for request in requests)
        store.exchange(wanted=requests[:2], retry_outcomes={"complete"})
        store.exchange([AttemptResult(requests[0], a_response(requests[0], "another"))], retry_outcomes={"complete"})
        before = store.get_many(request.key for request in requests)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in ("responses", "superseded"):
            connection.execute(f"DROP INDEX {table}_unsealed")
            connection.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        connection.execute("PRAGMA user_version = 4")
    change(path, "prompt_tokens = -1", requests[7].key)
    monkeypatch.setattr("zero_shot_distill.store.store._CHECKSUMS_AN_OPENING", 1000)
    assert (verify_store(path).n_faults, verify_store(path).n_unsealed) == (1, 1200)
    for n_left in (201, 0, 0):
        with ResponseStore(path) as store:
            found = store.get_many(request.key for request in requests)
            assert {key: reply for key, reply in found.items() if key != requests[7].key} == {
                key: reply for key, reply in before.items() if key != requests[7].key
            }
            assert [reply.text for reply in store.superseded([requests[0].key])] == ["an answer"]
        checked = verify_store(path)
        assert (checked.n_faults, checked.n_unsealed) == (1, n_left)


def test_processes_share_a_new_store(tmp_path):
    "Four processes open the same new file at once and write overlapping questions; nothing is lost, the first reply stays."
    path = tmp_path / "responses.sqlite"
    writers = [SPAWN.Process(target=put_many, args=(path, range(25 * i, 25 * i + 75), f"writer {i}")) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(300)
    assert [writer.exitcode for writer in writers] == [0] * 4
    with ResponseStore(path) as store:
        assert len(store) == 150
        assert list(store.missing(a_request(n) for n in range(150))) == []
        before = store.get_many(a_request(n).key for n in range(150))
    put_many(path, range(150), "too late")
    with ResponseStore(path) as store:
        assert store.get_many(before) == before
    assert integrity(path) == "ok"


def test_killed_writer_loses_nothing_it_reported(tmp_path):
    "SIGKILL in the middle of writing: every reply that `put` returned for is there, and the store is whole."
    path = tmp_path / "responses.sqlite"
    script = f"from test_store import *; put_many(Path({str(path)!r}), range(100_000), 'an answer', acknowledge=True)"
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=HERE)
    reported = [int(writer.stdout.readline()) for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    reported += [int(line) for line in writer.stdout if line.endswith("\n")]
    assert writer.wait() == -signal.SIGKILL
    with ResponseStore(path) as store:
        assert list(store.missing(a_request(n) for n in reported)) == []
        assert len(reported) <= len(store) <= len(reported) + 1
        assert store.get(a_request(reported[-1]).key) == a_response(a_request(reported[-1]))
    assert integrity(path) == "ok"


def write_in_turn(path: Path, writer: int, n_writers: int) -> None:
    "Body of a child process: make small transactions, one after the other, until every writer has made ten, or all together a thousand."
    with StoreFile(path, timeout_s=10) as store:
        counts: dict[str, int] = {}
        while (len(counts) < n_writers or min(counts.values()) < 10) and sum(counts.values()) < 1000:
            with store.writing() as connection:
                connection.execute("INSERT INTO changes (key) VALUES (?)", [str(writer)])
                time.sleep(0.02)  # a slow disk
            with store.reading() as connection:
                counts = dict(connection.execute("SELECT key, count(*) FROM changes GROUP BY key"))


def test_no_writer_starves(tmp_path):
    "With SQLite's own waiting one process makes nearly all of the transactions, and others give up after ten seconds without one."
    path, n_writers = tmp_path / "responses.sqlite", 8
    script = "from test_store import *; write_in_turn(Path({!r}), {}, {})"
    command = [[sys.executable, "-c", script.format(str(path), writer, n_writers)] for writer in range(n_writers)]
    writers = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True, env=HERE) for each in command]
    assert [writer.communicate()[1] for writer in writers] == [""] * n_writers
    with StoreFile(path) as store, store.reading() as connection:
        counts = dict(connection.execute("SELECT key, count(*) FROM changes GROUP BY key"))
    assert min(counts.get(str(writer), 0) for writer in range(n_writers)) >= 10


def test_reader_works_while_a_writer_holds_the_lock(tmp_path):
    path = tmp_path / "responses.sqlite"
    put_many(path, range(3), "an answer")
    with ResponseStore(path, timeout_s=0.2) as store:
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        assert len(store) == 3
        with pytest.raises(StoreError, match=r"responses\.sqlite: is locked by another program; wait for it"):
            store.put(a_request(3), a_response(a_request(3)))
        with pytest.raises(StoreError, match="is locked by another program"):
            ResponseStore(path, timeout_s=0.2)
        writer.execute("ROLLBACK")
        writer.close()
        assert store.put(a_request(3), a_response(a_request(3)))


def _write_without_rights(folder: Path) -> None:
    if os.getuid() == 0:  # nothing is read-only for root
        os.setgid(65534)
        os.setuid(65534)
    for path in (folder / "sub" / "new.sqlite", folder / "new.sqlite", folder / "old.sqlite"):
        with pytest.raises(StoreError, match="choose another work directory") as refusal:
            ResponseStore(path)
        assert "\n" not in str(refusal.value)
        assert str(folder) in str(refusal.value)


def test_read_only_folder_is_refused_at_once(tmp_path):
    "A store in a folder without write access is refused on opening, before anything is paid for."
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_many(folder / "old.sqlite", range(3), "an answer")
        (folder / "old.sqlite").chmod(0o444)
        folder.chmod(0o555)
        in_child(_write_without_rights, folder)
        folder.chmod(0o755)


def _fill_limited_file(path: Path) -> None:
    # The same errors as on a disk over quota, for every user and without a file system of our own.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with ResponseStore(path) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        _fill(store)


def _fill(store: ResponseStore) -> None:
    "Write until it fails; what was stored must stay readable in the same connection."
    n = 0
    with pytest.raises(StoreError, match=r"free some space|full, over quota") as refusal:  # noqa: PT012 (which one fails is not known)
        while n < 10_000:
            store.put(a_request(n), a_response(a_request(n), "word " * 1000))
            n += 1
    assert "\n" not in str(refusal.value)
    assert n > 5
    assert len(store) == n


def test_file_that_may_not_grow(tmp_path):
    path = tmp_path / "responses.sqlite"
    in_child(_fill_limited_file, path)
    with ResponseStore(path) as store:  # space is back: it goes on
        n = len(store)
        assert n > 5
        assert store.put(a_request(n), a_response(a_request(n), "word " * 1000))
    assert integrity(path) == "ok"


def test_full_disk(tmp_path):
    "A real full file system, where we may mount one."
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "zsd-test", str(disk)], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        path = disk / "responses.sqlite"
        with ResponseStore(path) as store:
            _fill(store)
            n = len(store)
        with ResponseStore(path) as store:
            assert len(store) == n
        assert integrity(path) == "ok"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("damage", ["header", "middle", "short"])
def test_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "responses.sqlite"
    put_many(path, range(300), "word " * 100)
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:100] = b"\xff" * 100
    elif damage == "middle":
        content[4096:-4096] = b"\xff" * (len(content) - 8192)
    else:
        del content[5000:]
    path.write_bytes(content)
    reason = r"responses\.sqlite: is (damaged; `zsd store salvage \S+responses\.sqlite --to NEW`|not a response store)"
    with pytest.raises(StoreError, match=reason), ResponseStore(path) as store:
        store.get_many(a_request(n).key for n in range(300))
    assert path.read_bytes()[:5000] == bytes(content[:5000])


def odd_store(folder: Path, kind: str) -> Path:
    "Something that somebody may name as a store."
    path = folder / f"{kind}.sqlite"
    put_many(path, range(200), "word " * 40)
    content = path.read_bytes()
    if kind in ("folder", "fifo", "link", "loop", "nothing"):
        path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link" | "loop":
            path.symlink_to("nowhere.sqlite" if kind == "link" else path.name)
        case "text":
            path.write_text("I am a text. " * 99)
        case "empty":
            path.write_text("")
        case "header":  # what a killed process leaves beside its log
            path.write_bytes(content[:4096])
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA writable_schema = ON")
                connection.execute("DELETE FROM sqlite_master")
                connection.execute("PRAGMA user_version = 0")
                connection.execute("PRAGMA application_id = 0")
        case "10" | "100" | "25%" | "50%" | "75%":
            n = len(content) * int(kind[:-1]) // 100 if kind.endswith("%") else int(kind)
            path.write_bytes(content[:n])
        case "later" | "table" | "column" | "other":
            changes = {
                "later": "PRAGMA user_version = 99",
                "table": "DROP TABLE responses",
                "column": "ALTER TABLE responses RENAME text TO words",
                "other": "PRAGMA application_id = 7",
            }
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute(changes[kind])
    return path


DAMAGED = r"is damaged; `zsd store salvage \S+ --to NEW` writes"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("nothing", "no such file; name a store"),
        ("folder", r"is a folder; name the store's file, e.g. \S+/responses.sqlite"),
        ("fifo", "is no ordinary file"),
        ("link", "a link that leads to no file"),
        ("loop", "a link that leads to no file"),
        ("text", r"is not a response store; .* `zsd store salvage \S+ --to NEW`"),
        ("empty", "is empty; name a store"),
        ("header", "is empty, or header.sqlite-wal is missing, which held its replies; name a store"),
        ("10", "is not a response store"),
        *((part, DAMAGED) for part in ("100", "25%", "50%", "75%")),
        ("later", r"written by a later zero_shot_distill .* `pip install -U zero_shot_distill`"),
        ("table", rf"{DAMAGED} .* \(responses not there\)"),
        ("column", rf"{DAMAGED} .* \(responses.text not there\)"),
        ("other", "a database of another program"),
    ],
)
def test_an_odd_store_is_one_line(tmp_path, kind, told):
    "To those who look and to those who check; nothing is changed."
    path = odd_store(tmp_path, kind)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=told) as error, ReadOnlyStore(path) as store:
        store_info(store)
    assert "\n" not in str(error.value)
    try:
        found = verify_store(path).faults
    except StoreError as refused:
        found = [str(refused)]
    assert re.search(told, found[0])
    assert (path.read_bytes() if path.is_file() else None) == before


def look_with_little_memory(path: Path, n_bytes: int) -> None:
    with ReadOnlyStore(path) as store:  # once, so that everything is imported
        store.check_header()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + n_bytes, resource.RLIM_INFINITY))
    with ReadOnlyStore(path) as store:
        assert store_info(store).total.n_responses == 1
    assert verify_store(path).n_faults == 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_a_huge_reply_is_not_copied_many_times(tmp_path):
    "Forty megabytes: SQLite's own copy, the bytes and the text, and some room."
    path = tmp_path / "responses.sqlite"
    put_many(path, range(1), "word " * 8_000_000)
    in_child(look_with_little_memory, path, 160_000_000)


def test_folder_where_a_file_should_be(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        ResponseStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created"):
        ResponseStore(tmp_path / "file" / "responses.sqlite")


def test_many_keys_and_odd_text(tmp_path):
    "More keys than one statement takes, and text that breaks naive escaping."
    odd = ["", "\x00", "'; DROP TABLE responses; --", "🦊 naïve — ‘quotes’", "line\nline\r\n", "\ufffd"]
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for n in range(1203):
            store.put(a_request(n), a_response(a_request(n), odd[n % len(odd)]))
        keys = [a_request(n).key for n in range(1300)]
        found = store.get_many(reversed(keys))
        assert list(found) == list(reversed(keys[:1203]))
        assert [found[key].text for key in keys[: len(odd)]] == odd
        assert [request.key for request in store.missing(a_request(n) for n in range(1300))] == keys[1203:]


def test_odd_questions_have_keys(tmp_path):
    "Dictionaries among the parameters, half a surrogate pair in the question: both survive the way through the file."
    schema = {"type": "json_schema", "json_schema": {"name": "reply", "schema": {"maximum": 3.0}}}
    request = Request.build("some-model", [{"role": "user", "content": "\ud83d"}], response_format=schema, stop=["\n"])
    same = Request.build("some-model", [{"role": "user", "content": "\ud83d"}], stop=["\n"], response_format=schema)
    assert {request} == {same}
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        store.put(request, a_response(request))
        assert store.requests_of([request.key]) == {request.key: request}


def test_quick_enough(tmp_path):
    "Storing must not be what a run waits for: a teacher gives at most some hundred replies a second. Processor time, which load does not lengthen."
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        requests = [a_request(n) for n in range(500)]
        start = time.process_time()
        for request in requests:
            store.put(request, a_response(request, "word " * 100))
        assert time.process_time() - start < 10
        start = time.process_time()
        assert list(store.missing(requests)) == []
        assert time.process_time() - start < 5


def test_first_reply_counts(tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as one, ResponseStore(tmp_path / "responses.sqlite") as two:
        request = a_request(1)
        assert one.put(request, a_response(request, "first"))
        assert not two.put(request, replace(a_response(request), text="second"))
        assert two.get(request.key).text == "first"


def _claim_and_wait(path: Path, claimed, done) -> None:
    with ResponseStore(path) as store:
        store.exchange(wanted=[a_request(0)])
        claimed.set()
        done.wait(300)


def test_a_claim_lasts_as_long_as_its_process(tmp_path):
    "However long ago it was made, as with a timeout of half an hour; and no longer than that."
    path = tmp_path / "responses.sqlite"
    claimed, done = SPAWN.Event(), SPAWN.Event()
    claimant = SPAWN.Process(target=_claim_and_wait, args=(path, claimed, done))
    claimant.start()
    assert claimed.wait(300)
    with ResponseStore(path) as store:
        with store.writing() as connection:
            connection.execute("UPDATE attempts SET held_since = '2026-01-01T12:00:00+00:00'")
        assert list(store.exchange(wanted=[a_request(0)]).held) == [a_request(0).key]
        done.set()
        claimant.join(300)
        assert store.exchange(wanted=[a_request(0)]).taken == [a_request(0)]


def test_a_second_reply_ends_the_claim(tmp_path):
    "Somebody else stored a reply meanwhile: ours is kept aside, and nothing is left that looks as if it were still asked."
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        store.exchange(wanted=[a_request(0)])
        store.put(a_request(0), a_response(a_request(0), "first"))
        claim = store.exchange([AttemptResult(a_request(0), a_response(a_request(0), "second"))])
        assert claim.settled[a_request(0).key].text == "first"
        assert [reply.text for reply in store.superseded([a_request(0).key])] == ["second"]
        assert store.open_attempts([a_request(0).key]) == {}
