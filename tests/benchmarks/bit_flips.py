"""What a changed bit of a store does: for each of some random bits, one at a time, is the file opened, does `verify` notice, and what do readers get?

    python tests/benchmarks/bit_flips.py --flips 200 --rows 300

The store is closed before, so that all of it is in one file. "unseen" are flips after which a reader gets a row that is not what was stored, in
any of its columns, although `verify` finds no fault; "refused" are flips after which a reader gets an error of one line in place of the rows.
"annotation" reads as an annotation does (`get_many`), "read-only" takes the rows as they are, without a check. `--before` strips the checksums first, as a store of schema 4 has none.
"""

import argparse
import random
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

from zero_shot_distill.store.database import StoreError
from zero_shot_distill.store.maintenance import kept_replies, verify_store
from zero_shot_distill.store.read_only import ReadOnlyStore
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.store.salvage import salvage_store
from zero_shot_distill.store.store import ResponseStore

WORDS = "the premise says so in as many words that two children watch a dog sleeping on a grey roof while nobody else looks up"


def make(path: Path, n_rows: int) -> list[Request]:
    "Fill a store whose rows are as a teacher leaves them."
    chance, words = random.Random(0), WORDS.split()
    requests = []
    with ResponseStore(path) as store:
        for n in range(n_rows):
            asked = f"Row {n}: {' '.join(chance.choices(words, k=40))}?"
            request = Request.build("some-model", [{"role": "user", "content": asked}], temperature=0, max_tokens=120)
            said = f"{' '.join(chance.choices(words, k=chance.randint(10, 60)))} – Label: neutral"
            moment = f"2026-01-01T12:{n % 60:02}:00+00:00"
            counts = dict(cached_tokens=n % 7 or None, cost_usd=0.001 * n, open_attempts=n % 3 == 2)
            response = Response(request.key, said, "stop", 90 + n % 9, n % 50, 0.5 + n / 1000, 1 + n % 3, moment, "some-model", **counts)
            store.put(request, response)
            requests.append(request)
    return requests


def read(store: ReadOnlyStore | ResponseStore, keys: list[str]) -> dict[str, tuple]:
    "Read replies and requests: as an annotation does, or row by row without any check."
    if isinstance(store, ReadOnlyStore):
        with store.reading() as connection:
            return {kept.response.key: (kept.response, kept.request) for kept in kept_replies(connection, "responses")}
    asked = store.requests_of(keys)
    return {key: (response, asked[key].to_json()) for key, response in store.get_many(keys).items()}


def outcome_of(path: Path, opens: type, keys: list[str], before: dict[str, tuple]) -> str:
    "Open a store and read all of it."
    try:
        with opens(path) as store:
            found = read(store, keys)
    except StoreError:
        return "refused"
    if any(found[key] != before.get(key) for key in found):
        return "changed"
    return "as before" if len(found) == len(before) else "rows missing"


def try_flip(content: bytes, bit: int, folder: Path, keys: list[str], before: dict[str, tuple]) -> Counter:
    "Change one bit, and count what comes of it."
    path, new = folder / "flipped.sqlite", folder / "salvaged.sqlite"
    for left in folder.glob("flipped.sqlite*"):
        left.unlink()
    new.unlink(missing_ok=True)
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    counts = Counter()
    try:
        noticed = verify_store(path).n_faults > 0
        counts["opened"] += 1
    except StoreError:
        noticed = True
    counts["noticed"] += noticed
    for name, opens in (("read-only", ReadOnlyStore), ("annotation", ResponseStore)):
        outcome = outcome_of(path, opens, keys, before)
        counts[f"{name}: {outcome}"] += 1
        counts["unseen"] += outcome == "changed" and not noticed and name == "read-only"
        path.write_bytes(changed)  # an opening for writing may have mended or moved something
    try:
        counts["salvaged replies"] += salvage_store(path, new).n_responses
        counts[f"salvaged: {outcome_of(new, ReadOnlyStore, keys, before)}"] += 1
    except StoreError:
        counts["salvaged: refused"] += 1
    return counts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--flips", type=int, default=200)
    options.add_argument("--rows", type=int, default=300)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--before", action="store_true")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "responses.sqlite"
        keys = [request.key for request in make(path, chosen.rows)]
        if chosen.before:
            with sqlite3.connect(path) as connection:
                for table in ("responses", "superseded"):
                    connection.execute(f"DROP INDEX {table}_unsealed")
                    connection.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
                connection.execute("PRAGMA user_version = 4")
            connection.close()
        with ReadOnlyStore(path) as store:
            before = read(store, keys)
        content = path.read_bytes()
        folder = Path(name) / "flipped"
        folder.mkdir()
        bits = random.Random(chosen.seed).sample(range(8 * len(content)), chosen.flips)
        counts = sum((try_flip(content, bit, folder, keys, before) for bit in bits), Counter())
    print(
        f"{chosen.flips} flips in {len(content):,} bytes, {chosen.rows} rows; salvaged replies: {counts.pop('salvaged replies') / chosen.flips:.1f} a flip"
    )
    for what, n in sorted(counts.items()):
        print(f"| {what} | {n} |")


if __name__ == "__main__":
    main()
