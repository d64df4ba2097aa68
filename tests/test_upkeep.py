"""Care for the store under real conditions: read-only and busy files, other versions, full disks, and damage of many kinds at random places."""

import errno
import io
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sqlite3
import struct
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path

import pandas
import pytest
from zsd_command import environment, is_one_line, zsd

from zero_shot_distill.store.database import _MIGRATIONS, StoreError
from zero_shot_distill.store.export import export_parquet, parquet_schema
from zero_shot_distill.store.maintenance import Kept, kept_replies, merge_stores, store_info, verify_store
from zero_shot_distill.store.read_only import ReadOnlyStore
from zero_shot_distill.store.request import AttemptResult, Request, Response
from zero_shot_distill.store.salvage import salvage_store
from zero_shot_distill.store.store import ResponseStore

# Real processes of their own, as two `zsd` commands are: nothing is inherited.
SPAWN = multiprocessing.get_context("spawn")
# Only a fork can lower its own rights or limits after everything is imported.
FORK = multiprocessing.get_context("fork")
PAGE = 4096


def a_request(n: int, n_words: int = 60) -> Request:
    words = random.Random(n)
    said = f"Nº {n}: " + " ".join(f"{words.getrandbits(32):x}" for _ in range(n_words))
    return Request.build("some-model", [{"role": "user", "content": said}], temperature=0)


def a_response(request: Request, text: str = "an answer", **changes) -> Response:
    return replace(Response(request.key, text, "stop", 12, 3, 0.5, 1, "2026-01-01T12:00:00+00:00", "some-model-2026"), **changes)


def put_numbers(path: Path, numbers: range, text: str = "an answer") -> None:
    with ResponseStore(path) as store:
        for n in numbers:
            request = a_request(n)
            store.put(request, a_response(request, text))


def varied(numbers: range) -> list[tuple[Request, Response]]:
    "Replies of many sizes: most fit three to a page, some fill two pages or ten, with questions or with answers."
    chance = random.Random(len(numbers))
    replies = []
    for n in numbers:
        request = a_request(n, chance.choice([20, 60, 60, 60, 60, 60, 700, 4000]))
        words = " ".join(f"“{chance.getrandbits(32):x}”" for _ in range(chance.choice([0, 10, 40, 40, 40, 40, 500])))
        tokens = {name: chance.choice([None, 0, 1, 200, 70_000]) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
        cost_usd = chance.choice([None, 0.0, 1.0, 0.00123])
        latency_s = chance.choice([0.0, 2.0, 0.25])
        replies.append((request, a_response(request, words, latency_s=latency_s, cost_usd=cost_usd, **tokens)))
    return replies


def fill(path: Path, numbers: range) -> None:
    "Replies, every thirtieth superseded; questions that failed; provider batches."
    with ResponseStore(path) as store:
        replies = varied(numbers)
        again = [(request, replace(response, finish_reason="refusal")) for request, response in replies[::30]]
        store.put_many([*again, *replies])
        store.exchange(wanted=[request for request, _ in again], retry_outcomes=["refused"])
        later = "2026-02-01T12:00:00+00:00"
        store.exchange(
            [AttemptResult(request, a_response(request, "yes", created_at=later)) for request, response in again],
            retry_outcomes=["refused"],
        )
        failed = [a_request(10_000 + n) for n in numbers[:40]]
        store.exchange(wanted=failed)
        store.exchange([AttemptResult(request, None, failure="timed out") for request in failed])
        with store.writing() as connection:
            for n in range(3):
                values = (f"batch{n}{numbers[0]}", "some-model", "https://example.org/v1", None, f"b-{n}", "running", 50, later)
                connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def contents(path: Path) -> dict[str, dict]:
    "All that a store holds."
    with ReadOnlyStore(path) as store, store.reading() as connection:
        return {
            "responses": {kept.response.key: kept for kept in kept_replies(connection, "responses")},
            "superseded": {kept.response.key: kept for kept in kept_replies(connection, "superseded")},
            "attempts": dict(connection.execute("SELECT key, (n, n_open, failure) = (1, 1, 'timed out') FROM attempts")),
            "batches": dict(connection.execute("SELECT id, state FROM batches")),
        }


def pages_of(path: Path, table: str) -> dict[str, set[int]]:
    "Key -> the pages in which the row stands, as SQLite's own `dbstat` tells."
    with closing(sqlite3.connect(path)) as connection:
        try:
            rows = connection.execute("SELECT path, pageno, pagetype, ncell FROM dbstat WHERE name = ?", [table]).fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite was built without dbstat, which says where rows stand")
        keys = iter(connection.execute(f"SELECT key FROM {table} ORDER BY rowid").fetchall())
    where: dict[str, set[int]] = {}
    at: dict[tuple[str, int], str] = {}
    for place, page, kind, n_cells in sorted(rows):
        if kind == "leaf":
            for cell in range(n_cells):
                (at[place, cell],) = next(keys)
                where[at[place, cell]] = {page}
    for place, page, kind, _ in rows:
        if kind == "overflow":
            leaf, cell = place.rpartition("+")[0].rsplit("/", 1)
            where[at[leaf + "/", int(cell, 16)]].add(page)
    assert next(keys, None) is None
    return where


# Looking


def as_nobody(work, *arguments) -> None:
    "Run `work` in a forked child that has no rights, and fail with it."

    def without_rights() -> None:
        if os.getuid() == 0:  # nothing is read-only for root
            os.setgid(65534)
            os.setuid(65534)
        work(*arguments)

    child = FORK.Process(target=without_rights)
    child.start()
    child.join(300)
    assert child.exitcode == 0


@pytest.fixture
def read_only_folder(tmp_path):
    "A folder that everybody may read and nobody may write to, while the test runs."
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    folder = tmp_path / "medium"
    folder.mkdir()
    yield folder
    folder.chmod(0o755)


def test_read_only_medium(read_only_folder, tmp_path):
    "A store on a read-only medium can be looked into, checked, exported and merged from."
    folder = read_only_folder
    put_numbers(folder / "responses.sqlite", range(20))
    (folder / "responses.sqlite").chmod(0o444)
    folder.chmod(0o555)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    elsewhere.chmod(0o777)

    def look() -> None:
        assert verify_store(folder / "responses.sqlite").n_responses == 20
        assert verify_store(folder / "responses.sqlite").n_faults == 0
        with ReadOnlyStore(folder / "responses.sqlite") as store:
            assert store_info(store).total.n_responses == 20
            assert export_parquet(store, elsewhere / "t.parquet") == 20
        with ResponseStore(elsewhere / "ours.sqlite") as ours:
            assert merge_stores(ours, [folder / "responses.sqlite"])[0].n_taken == 20
        assert salvage_store(folder / "responses.sqlite", elsewhere / "new.sqlite").n_responses == 20

    as_nobody(look)
    assert os.listdir(folder) == ["responses.sqlite"]


def test_unfinished_log_on_a_read_only_medium(read_only_folder):
    "Replies that stand in the log alone are not passed over in silence."
    folder = read_only_folder
    with ResponseStore(folder / "busy.sqlite") as store:
        store.put(a_request(1), a_response(a_request(1)))
        for ending in ("", "-wal"):
            (folder / f"responses.sqlite{ending}").write_bytes((folder / f"busy.sqlite{ending}").read_bytes())
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)

    def look() -> None:
        with pytest.raises(StoreError, match=r"the last replies are in responses\.sqlite-wal.*copy both files"):
            ReadOnlyStore(folder / "responses.sqlite")

    as_nobody(look)


def test_unreadable_file(read_only_folder):
    put_numbers(read_only_folder / "responses.sqlite", range(1))
    (read_only_folder / "responses.sqlite").chmod(0o000)

    def look() -> None:
        with pytest.raises(StoreError, match="cannot be read; give yourself read access"):
            ReadOnlyStore(read_only_folder / "responses.sqlite")

    as_nobody(look)


def test_looking_while_others_write(tmp_path):
    "Two processes write; every check meanwhile finds a sound store, and never fewer replies than before."
    path = tmp_path / "responses.sqlite"
    put_numbers(path, range(50))
    writers = [SPAWN.Process(target=put_numbers, args=(path, range(100 + 400 * i, 300 + 400 * i))) for i in range(2)]
    for writer in writers:
        writer.start()
    counts = [50]
    while any(writer.is_alive() for writer in writers):
        checked = verify_store(path)
        assert checked.n_faults == 0
        with ReadOnlyStore(path) as store:
            counts += [checked.n_responses, store_info(store).total.n_responses, export_parquet(store, tmp_path / "t.parquet")]
    assert counts == sorted(counts)
    with ReadOnlyStore(path) as store:
        assert export_parquet(store, tmp_path / "t.parquet") == 450


def test_looking_leaves_no_file_behind_and_takes_none_from_others(tmp_path):
    path = tmp_path / "responses.sqlite"
    put_numbers(path, range(3))
    before = path.read_bytes()
    with ReadOnlyStore(path) as store:
        store_info(store)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before
    # Others that began meanwhile go on.
    look = ReadOnlyStore(path)
    writer = SPAWN.Process(target=put_numbers, args=(path, range(3, 400)))
    writer.start()
    while writer.is_alive() and store_info(look).total.n_responses <= 3:
        pass
    look.close()
    writer.join()
    assert writer.exitcode == 0
    assert verify_store(path).n_faults == 0
    with ReadOnlyStore(path) as store:
        assert store_info(store).total.n_responses == 400
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "empty.sqlite").write_bytes(b"")
    with pytest.raises(StoreError, match="is empty"):
        ReadOnlyStore(tmp_path / "empty.sqlite")
    with closing(sqlite3.connect(tmp_path / "bookmarks.sqlite")) as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    for look in (verify_store, ReadOnlyStore):
        with pytest.raises(StoreError, match="a database of another program"):
            look(tmp_path / "bookmarks.sqlite")
    with pytest.raises(StoreError, match="is a folder"):
        ReadOnlyStore(tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("text = CAST(x'ff61' AS TEXT)", "impossible value of text"),
        ("prompt_tokens = -1", "impossible value of prompt_tokens"),
        ("completion_tokens = 'many'", "impossible value of completion_tokens"),
        ("latency_s = 9e999", "impossible value of latency_s"),
        ("cost_usd = -0.5", "impossible value of cost_usd"),
        ("created_at = 'yesterday'", "impossible value of created_at"),
        ("created_at = '2026-01-01T12:00:00'", "impossible value of created_at"),  # in which time zone?
        ("attempts = 1, open_attempts = 2", "impossible value of open_attempts"),
        ("via = x'00'", "impossible value of via"),
        ("text = text || ' '", "its checksum does not fit"),
        ("finish_reason = 'stoq'", "its checksum does not fit"),
        ("prompt_tokens = prompt_tokens + 1", "its checksum does not fit"),
        ("latency_s = latency_s * 2", "its checksum does not fit"),
        ("cost_usd = 8", "its checksum does not fit"),
        ("created_at = replace(created_at, '2026', '2027')", "its checksum does not fit"),
        ("checksum = x'0011223344556677'", "its checksum does not fit"),
        ("request = replace(request, 'user', 'uset')", "the key is not that of the request"),
        ("key = upper(key)", "the key is not that of the request"),
    ],
)
def test_faulty_row(tmp_path, change, fault):
    "A row that says nonsense is found, named, and neither merged nor salvaged."
    path = tmp_path / "responses.sqlite"
    put_numbers(path, range(5))
    key = a_request(3).key
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE responses SET {change} WHERE key = ?", [key])
    checked = verify_store(path)
    assert (checked.n_responses, checked.n_faults) == (5, 1)
    assert fault in checked.faults[0]
    assert re.search(r"; it answers '.{1,80}'$", checked.faults[0])  # which question to look for
    assert checked.faults[0].lower().startswith(f"responses, key {key[:12]}")
    with ResponseStore(tmp_path / "ours.sqlite") as ours:
        merged = merge_stores(ours, [path])[0]
    assert (merged.n_taken, merged.n_faulty) == (4, 1)
    assert salvage_store(path, tmp_path / "new.sqlite").n_responses == 4


# Merging


def test_merge_older_version(tmp_path):
    "A store of version 1 on a read-only path is merged, and not a byte of it changes."
    old = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        for statement in (*_MIGRATIONS[0], "PRAGMA application_id = 0x7A736464", "PRAGMA user_version = 1"):
            connection.execute(statement)
        rows = [(*astuple(a_response(request))[:9], request.to_json()) for request in map(a_request, range(30))]
        connection.executemany(f"INSERT INTO responses VALUES ({', '.join('?' * 10)})", rows)
    old.chmod(0o444)
    before = old.read_bytes()
    assert verify_store(old).n_faults == 0
    assert salvage_store(old, tmp_path / "salvaged.sqlite").n_responses == 30
    put_numbers(tmp_path / "ours.sqlite", range(20, 40))
    with ResponseStore(tmp_path / "ours.sqlite") as ours:
        merged = merge_stores(ours, [old])[0]
        assert (merged.n_taken, merged.n_known, merged.n_conflicting, len(ours)) == (20, 10, 0, 40)
        assert ours.get(a_request(3).key) == a_response(a_request(3))
    assert old.read_bytes() == before


def test_merge_both_ways_gives_the_same_replies(tmp_path):
    "Whatever two stores share, each of them holds all questions afterwards, and no reply is lost: it counts or is kept aside."
    paths = [tmp_path / "one.sqlite", tmp_path / "two.sqlite"]
    fill(paths[0], range(0, 300))
    fill(paths[1], range(200, 500))
    before = [contents(path) for path in paths]

    def paid(path: Path) -> set[tuple[str, str, str]]:
        with ReadOnlyStore(path) as store, store.reading() as connection:
            rows = [*kept_replies(connection, "responses"), *kept_replies(connection, "superseded")]
            return {(kept.response.key, kept.response.text, kept.response.created_at) for kept in rows}

    for ours, theirs in (paths, paths[::-1]):
        with ResponseStore(tmp_path / f"{ours.stem}-merged.sqlite") as merged:
            merge_stores(merged, [ours, theirs])
            n_superseded = store_info(merged).total.n_superseded
            assert [each.n_taken + each.n_aside + each.n_attempts for each in merge_stores(merged, [theirs, ours])] == [0, 0]
            assert store_info(merged).total.n_superseded == n_superseded
        after = contents(tmp_path / f"{ours.stem}-merged.sqlite")
        assert set(after["responses"]) == set(before[0]["responses"]) | set(before[1]["responses"])
        assert set(after["attempts"]) == set(before[0]["attempts"]) | set(before[1]["attempts"])
        assert paid(tmp_path / f"{ours.stem}-merged.sqlite") == paid(ours) | paid(theirs)


def test_merge_that_was_stopped_goes_on(tmp_path):
    put_numbers(tmp_path / "theirs.sqlite", range(1200))

    def stop(done: int, total: int, note: str = "", /) -> None:
        raise KeyboardInterrupt

    with ResponseStore(tmp_path / "ours.sqlite") as ours:
        with pytest.raises(KeyboardInterrupt):
            merge_stores(ours, [tmp_path / "theirs.sqlite"], stop)
        assert len(ours) == 500
        merged = merge_stores(ours, [tmp_path / "theirs.sqlite"])[0]
        assert (merged.n_taken, merged.n_known, len(ours)) == (700, 500, 1200)


def test_merge_says_first_what_cannot_be_read(tmp_path):
    "Nothing is taken from one store when another is not there, or is damaged at its beginning."
    put_numbers(tmp_path / "theirs.sqlite", range(5))
    content = bytearray((tmp_path / "theirs.sqlite").read_bytes())
    content[100:2000] = b"\xff" * 1900
    (tmp_path / "bad.sqlite").write_bytes(content)
    with ResponseStore(tmp_path / "ours.sqlite") as ours:
        for other, line in (("misspelt.sqlite", "no such file"), ("bad.sqlite", "zsd store salvage")):
            with pytest.raises(StoreError, match=line):
                merge_stores(ours, [tmp_path / "theirs.sqlite", tmp_path / other])
        assert len(ours) == 0


def test_merge_into_a_locked_store(tmp_path):
    put_numbers(tmp_path / "theirs.sqlite", range(5))
    with (
        ResponseStore(tmp_path / "ours.sqlite", timeout_s=0.2) as ours,
        closing(sqlite3.connect(ours.path, isolation_level=None)) as writer,
    ):
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked by another program; wait for it"):
            merge_stores(ours, [tmp_path / "theirs.sqlite"])
        writer.execute("ROLLBACK")
        assert merge_stores(ours, [tmp_path / "theirs.sqlite"])[0].n_taken == 5


# Exporting


def test_export_holds_everything(tmp_path):
    "Every reply, every column, in the types that the schema says; odd text as it is."
    path = tmp_path / "responses.sqlite"
    fill(path, range(100))
    odd = ["", "\x00", "'; DROP TABLE responses; --", "🦊 naïve — ‘quotes’", "line\nline\r\n", "\ufffd"]
    with ResponseStore(path) as store:
        store.put_many([(request, a_response(request, odd[n])) for n in range(len(odd)) for request in [a_request(500 + n)]])
        half = Request.build("some-model", [{"role": "user", "content": "\ud83d and so on"}], response_format={"type": "json_object"})
        store.put(half, a_response(half))
    with ReadOnlyStore(path) as store:
        assert export_parquet(store, tmp_path / "t.parquet") == 100 + 4 + len(odd) + 1
        info = store_info(store)
    table = pandas.read_parquet(tmp_path / "t.parquet")
    assert list(table.columns) == parquet_schema().names
    stored = contents(path)
    for name, superseded in (("responses", False), ("superseded", True)):
        rows = table[table.superseded == superseded].set_index("key")
        assert set(rows.index) == set(stored[name])
        for key, kept in stored[name].items():
            row, request = rows.loc[key], Request.from_json(kept.request)
            assert (row.text, row.outcome, row.model) == (kept.response.text, kept.response.outcome, request.model)
            assert row.messages[0]["content"].endswith(request.messages[0][1][-8:])
            assert json.loads(row.sampling) == dict(request.sampling)
            assert row.created_at.isoformat() == kept.response.created_at
    assert table.cost_usd.sum() == pytest.approx(info.total.cost_usd)
    assert table.cost_usd.isna().sum() == info.total.n_unknown_cost
    assert table.prompt_tokens.sum() == info.total.prompt_tokens


def test_export_of_an_empty_store(tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        assert export_parquet(store, tmp_path / "t.parquet") == 0
        assert store_info(store).total.n_responses == 0
    assert len(pandas.read_parquet(tmp_path / "t.parquet")) == 0
    assert verify_store(tmp_path / "responses.sqlite").n_faults == 0


def _export_into_little_space(path: Path, table: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert verify_store(path).n_faults == 0  # there is not even room for the lock file that SQLite puts beside it
    with ReadOnlyStore(path) as store, pytest.raises(StoreError, match=r"t\.parquet: cannot be written .*; free some space") as refusal:
        export_parquet(store, table)
    assert "\n" not in str(refusal.value)


def _salvage_into_little_space(path: Path, new: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(StoreError, match=r"free some space|full, over quota"):
        salvage_store(path, new)


@pytest.mark.parametrize("work", [_export_into_little_space, _salvage_into_little_space])
def test_full_disk_leaves_no_halves(tmp_path, work):
    path, written = tmp_path / "responses.sqlite", tmp_path / "out" / "t.parquet"
    put_numbers(path, range(300))
    child = FORK.Process(target=work, args=(path, written))
    child.start()
    child.join(300)
    assert child.exitcode == 0
    assert not written.parent.exists() or os.listdir(written.parent) == []


# Salvage


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "A store to be damaged in copies."
    path = tmp_path_factory.mktemp("whole") / "responses.sqlite"
    fill(path, range(500))
    return path


def check(
    path: Path, damaged: set[int], reference: dict, where: dict[str, dict[str, set[int]]], tmp_path: Path, exact: bool = True
) -> None:
    "What stands in undamaged pages comes back, and nothing comes back that was not there."
    salvaged = salvage_store(path, tmp_path / "new.sqlite")
    back = contents(tmp_path / "new.sqlite")
    assert verify_store(tmp_path / "new.sqlite").n_faults == 0
    intact = {table: {key for key, pages in where[table].items() if not pages & damaged} for table in where}
    for key in intact["responses"]:
        assert back["responses"][key] == reference["responses"][key]
    # A superseded reply counts again if it is the only one left.
    paid = {(kept.response.key, kept.response.text) for table in ("responses", "superseded") for kept in back[table].values()}
    for key in intact["superseded"]:
        assert (key, reference["superseded"][key].response.text) in paid
    if exact:
        for table in ("responses", "superseded"):
            for key, kept in back[table].items():
                known = [reference[which][key] for which in ("responses", "superseded") if key in reference[which]]
                assert kept.response in [each.response for each in known]
        assert salvaged.n_lost <= len(reference["responses"]) - len(set(reference["responses"]) & set(back["responses"]))
    assert salvaged.n_responses == len(back["responses"])


def damage(content: bytearray, pages: set[int], chance: random.Random, first: int = 0, last: int = PAGE) -> None:
    "Overwrite bytes `first` to `last` of each page."
    for page in pages:
        end = min(page * PAGE, (page - 1) * PAGE + last, len(content))
        content[(page - 1) * PAGE + first : end] = chance.randbytes(max(0, end - (page - 1) * PAGE - first))


def interior(path: Path) -> set[int]:
    with closing(sqlite3.connect(path)) as connection:
        return {page for (page,) in connection.execute("SELECT pageno FROM dbstat WHERE pagetype = 'internal'")}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
@pytest.mark.parametrize(
    "kind",
    [
        "none",
        "header",
        "page size",
        "first page",
        "interior",
        "few pages",
        "many pages",
        "all kinds",
        "zeros",
        "half",
        "odd half",
        "sectors",
        "bytes",
    ],
)
def test_salvage_of_damage_at_random_places(whole, tmp_path, kind, seed):
    where = {table: pages_of(whole, table) for table in ("responses", "superseded")}
    reference = contents(whole)
    content = bytearray(whole.read_bytes())
    n_pages = len(content) // PAGE
    chance = random.Random(f"{kind} {seed}")
    damaged: set[int] = set()
    exact = True
    match kind:
        case "header":
            damage(content, {1}, chance, last=100)
        case "page size":
            damage(content, {1}, chance, first=16, last=18)
        case "first page":
            damage(content, {1}, chance)
        case "interior":
            damaged = interior(whole)
            damage(content, damaged, chance)
        case "few pages" | "many pages":
            damaged = set(chance.sample(range(2, n_pages + 1), 5 if kind == "few pages" else n_pages // 4))
            damage(content, damaged, chance)
        case "all kinds":
            damaged = {1, *interior(whole), *chance.sample(range(2, n_pages + 1), n_pages // 10)}
            damage(content, damaged, chance)
            cut = chance.randrange(len(content) // 2, len(content))
            del content[cut:]
            damaged |= set(range(cut // PAGE + 1, n_pages + 1))
        case "zeros":
            start = chance.randrange(n_pages - 20)
            content[start * PAGE : (start + 20) * PAGE] = bytes(20 * PAGE)
            damaged = set(range(start + 1, start + 21))
        case "half" | "odd half":
            cut = n_pages // 2 * PAGE + (chance.randrange(1, PAGE) if kind == "odd half" else 0)
            del content[cut:]
            damaged = set(range(cut // PAGE + 1, n_pages + 1))
        case "sectors" | "bytes":
            # Parts of pages. What is changed in the text of a reply alone cannot be noticed.
            exact = False
            damaged = set(chance.sample(range(2, n_pages + 1), n_pages // 8))
            for page in damaged:
                first = chance.randrange(8) * 512 if kind == "sectors" else chance.randrange(PAGE)
                damage(content, {page}, chance, first, first + (512 if kind == "sectors" else 1))
    path = tmp_path / "responses.sqlite"
    path.write_bytes(content)
    check(path, damaged, reference, where, tmp_path, exact)
    if not damaged:
        assert contents(tmp_path / "new.sqlite") == reference
    assert path.read_bytes() == content


@pytest.mark.parametrize("page_size", [1024, 8192, 65536])
def test_salvage_finds_the_page_size(tmp_path, page_size):
    path = tmp_path / "responses.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("VACUUM")
    put_numbers(path, range(300))
    content = bytearray(path.read_bytes())
    content[:page_size] = bytes(page_size)
    path.write_bytes(content)
    assert salvage_store(path, tmp_path / "new.sqlite").n_responses == 300


@pytest.fixture(scope="module")
def with_log(tmp_path_factory) -> tuple[Path, dict, dict]:
    "A store whose last half stands in the write-ahead log, as after a power cut; what it holds; and where."
    folder = tmp_path_factory.mktemp("with_log")
    fill(folder / "busy.sqlite", range(0, 200))
    with ResponseStore(folder / "busy.sqlite") as store:
        with store.reading() as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        fill(folder / "busy.sqlite", range(200, 400))
        for ending in ("", "-wal"):
            (folder / f"responses.sqlite{ending}").write_bytes((folder / f"busy.sqlite{ending}").read_bytes())
    copy = folder / "copy.sqlite"
    for ending in ("", "-wal"):
        copy.with_name(copy.name + ending).write_bytes((folder / f"responses.sqlite{ending}").read_bytes())
    where = {table: pages_of(copy, table) for table in ("responses", "superseded")}
    return folder / "responses.sqlite", contents(copy), where


def frames(log: bytes) -> dict[int, int]:
    "Page -> offset of its newest version in the log."
    starts = range(32, len(log) - PAGE - 23, PAGE + 24)
    return {struct.unpack_from(">I", log, start)[0]: start + 24 for start in starts}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["none", "first page", "log header", "file", "log pages", "both", "log cut off"])
def test_salvage_with_a_log(with_log, tmp_path, kind, seed):
    "Replies that stand only in the log come back, whatever became of the file; those in the file, whatever became of the log."
    source, reference, where = with_log
    content = bytearray(source.read_bytes())
    log = bytearray(source.with_name(source.name + "-wal").read_bytes())
    newest = frames(log)
    assert len(newest) > 100
    n_pages = len(content) // PAGE
    chance = random.Random(f"{kind} {seed}")
    damaged: set[int] = set()
    match kind:
        case "first page":
            damage(content, {1}, chance)
        case "log header":
            log[:32] = chance.randbytes(32)
        case "file":
            damage(content, set(range(1, n_pages + 1)), chance)
            damaged = set(range(1, n_pages + 1)) - set(newest)
        case "log pages" | "both":
            damaged = set(chance.sample(sorted(newest), 30))
            for page in damaged:
                log[newest[page] : newest[page] + PAGE] = chance.randbytes(PAGE)
            if kind == "both":
                lost = {1, *chance.sample(range(2, n_pages + 1), n_pages // 5)}
                damage(content, lost, chance)
                damaged |= lost - set(newest)
        case "log cut off":
            cut = chance.randrange(len(log) // 3, len(log))
            del log[cut:]
            damaged = {page for page, offset in newest.items() if offset + PAGE > cut}
    path = tmp_path / "responses.sqlite"
    path.write_bytes(content)
    path.with_name(path.name + "-wal").write_bytes(log)
    check(path, damaged, reference, where, tmp_path)
    if not damaged:
        assert contents(tmp_path / "new.sqlite") == reference


def test_salvage_without_the_log(with_log, tmp_path):
    "The file alone holds what it held when the log was last brought over."
    source, reference, _ = with_log
    path = tmp_path / "responses.sqlite"
    path.write_bytes(source.read_bytes())
    salvage_store(path, tmp_path / "new.sqlite")
    back = contents(tmp_path / "new.sqlite")["responses"]
    first = {request.key for request, _ in varied(range(0, 200))}
    assert set(back) == first
    assert all(back[key] == reference["responses"][key] for key in first)


def test_salvage_of_a_sound_store_in_use_changes_nothing(tmp_path):
    put_numbers(tmp_path / "responses.sqlite", range(10))
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        store.put(a_request(10), a_response(a_request(10)))
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
        assert salvage_store(tmp_path / "responses.sqlite", tmp_path / "new" / "salvaged.sqlite").n_responses == 11
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert os.listdir(tmp_path / "new") == ["salvaged.sqlite"]


def test_salvage_from_a_disk_with_bad_sectors(whole, tmp_path, monkeypatch):
    "Pages that the disk does not give are passed over and counted."
    n_pages = whole.stat().st_size // PAGE
    bad = set(random.Random(0).sample(range(2, n_pages + 1), 20))

    class Disk(io.FileIO):
        def read(self, n_bytes: int = -1) -> bytes:
            if self.tell() // PAGE + 1 in bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(n_bytes)

    usual_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how, **options: Disk(path) if path == whole else usual_open(path, *how, **options))
    where = {table: pages_of(whole, table) for table in ("responses", "superseded")}
    check(whole, bad, contents(whole), where, tmp_path)
    assert salvage_store(whole, tmp_path / "again.sqlite").n_unreadable_pages == 20


def test_newest_reply_counts_after_salvage(tmp_path):
    "Remains of a reply that was asked for again do not come back in its place."
    path = tmp_path / "responses.sqlite"
    request = a_request(1)
    with ResponseStore(path) as store:
        with store.reading() as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        store.put(request, a_response(request, "cut", finish_reason="length"))
        store.exchange(wanted=[request], retry_outcomes=["length"])
        later = a_response(request, "the whole", created_at="2026-01-02T12:00:00+00:00")
        store.exchange([AttemptResult(request, later)], retry_outcomes=["length"])
        stored = store.get(request.key)
        salvage_store(path, tmp_path / "new.sqlite")
    back = contents(tmp_path / "new.sqlite")
    assert back["responses"] == {request.key: Kept(stored, request.to_json())}
    assert [kept.response.text for kept in back["superseded"].values()] == ["cut"]
    assert back["attempts"] == {}


# The commands


def test_commands(tmp_path):
    "A damaged store from the first complaint to the salvaged one, as a user sees it."
    work = tmp_path / "zsd-work"
    put_numbers(work / "responses.sqlite", range(300))
    put_numbers(tmp_path / "colleague.sqlite", range(250, 320), "another answer")
    merged = zsd(tmp_path, "store", "merge", "colleague.sqlite", "--json")
    assert {"n_taken": 20, "n_conflicting": 50, "n_aside": 50}.items() <= json.loads(merged.out)[0].items()
    info = zsd(tmp_path, "store", "info", "--json", preload="none")
    assert json.loads(info.out)["total"]["n_responses"] == 320
    assert not info.modules & {"torch", "transformers", "openai", "datasets", "pandas", "numpy", "pyarrow"}
    assert "320" in zsd(tmp_path, "store", "info").out
    assert zsd(tmp_path, "store", "export", "tables/all.parquet").out == "tables/all.parquet: 370 rows\n"
    sound = zsd(tmp_path, "store", "verify", "--json")
    assert (sound.status, json.loads(sound.out)["n_faults"]) == (0, 0)

    content = bytearray((work / "responses.sqlite").read_bytes())
    content[40_000:60_000] = random.Random(0).randbytes(20_000)
    (work / "responses.sqlite").write_bytes(content)
    unsound = zsd(tmp_path, "store", "verify")
    assert unsound.status == 1
    assert "zsd store salvage zsd-work/responses.sqlite --to" in " ".join(unsound.out.split())
    is_one_line(zsd(tmp_path, "store", "info"), 1, "zsd-work/responses.sqlite: is damaged", "zsd store salvage")
    is_one_line(zsd(tmp_path, "store", "salvage", "zsd-work/responses.sqlite", "--to", "colleague.sqlite"), 1, "exists already")
    salvaged = zsd(tmp_path, "store", "salvage", "zsd-work/responses.sqlite", "--to", "new.sqlite", "--json")
    n_back = json.loads(salvaged.out)["n_responses"]
    assert 280 < n_back < 320
    assert zsd(tmp_path, "store", "verify", "--store", "new.sqlite").status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["info"],
        ["verify"],
        ["export", "t.parquet"],
        ["merge", "other.sqlite"],
        ["salvage", "zsd-work/responses.sqlite", "--to", "new.sqlite"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_store_is_no_new_store(tmp_path, arguments):
    is_one_line(zsd(tmp_path, "store", *arguments), 2, "zsd-work/responses.sqlite: no such file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["streams"]


def test_help_has_examples(tmp_path):
    for command in ("info", "verify", "export", "merge", "salvage"):
        assert "Example: zsd store" in " ".join(zsd(tmp_path, "store", command, "--help", env=environment()).out.replace("`", "").split())


def test_replies_in_the_log_are_found_through_a_link(tmp_path):
    "SQLite keeps the write-ahead log beside the file that a link leads to."
    real, linked = tmp_path / "real" / "store.db", tmp_path / "work" / "responses.sqlite"
    for path in (real, linked):
        path.parent.mkdir()
    open_store = ResponseStore(real)  # as one that was killed: what it holds is in the log
    for n in range(20):
        request = a_request(n)
        open_store.put(request, a_response(request))
    linked.symlink_to(real)
    assert real.with_name("store.db-wal").stat().st_size > 20 * PAGE
    assert [salvage_store(path, tmp_path / f"{path.stem}.sqlite").n_responses for path in (real, linked)] == [20, 20]
    sizes = [store_info(store).n_bytes for store in (open_store, ReadOnlyStore(linked))]
    assert sizes[0] == sizes[1] > 20 * PAGE  # the log included
    open_store.close()
