"""A stand-in of the Hugging Face hub's HTTP interface on loopback: no hub, but what `huggingface_hub` asks of one to upload a folder.

It knows whoami, creating a repository, the right to write, a repository's data, the check of a card, preupload, the batch interface of Git LFS (files in
one part or several) and commits. Everything lies in memory. It knows nothing of Xet: with `HF_HUB_DISABLE_XET=1` large files go by LFS, and without it
`lfs_endings=()` has all files travel within the commit, as the hub has small ones. It takes one token, `TOKEN`.

In a test: `with StandInHub() as hub: …`, with HF_ENDPOINT set to `hub.address`. `hub.fault` may answer in its place.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_standInTokenThatNoOutputMayHold0042"
PART = 40_000  # bytes; a larger file goes in parts


@dataclass
class Repository:
    "What the stand-in holds of a repository."

    is_private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[dict[str, Any]] = field(default_factory=list)  # `summary`, and `paths` that came with it


@dataclass(frozen=True)
class Asked:
    "A request that came."

    method: str
    path: str
    body: bytes
    has_token: bool


@dataclass(frozen=True)
class Answer:
    "What is answered; JSON where `content` is no bytes."

    status: int = 200
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class StandInHub:
    "Serve the interface from a thread; `fault` is asked first, and may answer a request in its own way."

    def __init__(self, lfs_endings: tuple[str, ...] = (".safetensors", ".arrow")):
        self.lfs_endings = lfs_endings
        self.owners = {"me": "write", "my-team": "write", "my-readers": "read"}
        self.repositories: dict[tuple[str, str], Repository] = {}  # by kind ("model" or "dataset") and name
        self.objects: dict[str, bytes] = {}  # of LFS, by SHA-256
        self.asked: list[Asked] = []
        self.fault: Callable[[Asked, int], Answer | None] = lambda asked, n: None  # n: how often that method and path came before
        self._parts: dict[str, dict[int, bytes]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "StandInHub":
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = hub._answer(Asked(self.command, unquote(self.path), body, self.headers.get("Authorization") == f"Bearer {TOKEN}"))
                content = answer.content if isinstance(answer.content, bytes) else json.dumps(answer.content).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: Any) -> None:
                "Say nothing."

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str, part_of_path: str) -> int:
        "Count the requests of a kind."
        return sum(asked.method == method and part_of_path in asked.path for asked in self.asked)

    def _answer(self, asked: Asked) -> Answer:
        with self._lock:
            n = sum((one.method, one.path) == (asked.method, asked.path) for one in self.asked)
            self.asked.append(asked)
        faulty = self.fault(asked, n)  # outside of the lock: it may take its time
        with self._lock:
            return faulty or self._served(asked)

    def _served(self, asked: Asked) -> Answer:
        path = urlsplit(asked.path).path.strip("/").split("/")
        if path[0] == "lfs":  # the addresses that a batch has handed out stand for themselves, as signed ones do
            return self._stored(asked, *path[1:])
        if not asked.has_token:
            return Answer(401, {"error": "Invalid username or password."})
        match path:
            case ["api", "whoami-v2"]:
                return Answer(content={"type": "user", "name": "me", "orgs": []})
            case ["api", "repos", "create"]:
                return self._created(json.loads(asked.body))
            case ["api", "validate-yaml"]:
                return self._checked(json.loads(asked.body)["content"])
            case ["api", ("models" | "datasets") as kinds, owner, name, *rest]:
                return self._of_repository(asked, kinds[:-1], f"{owner}/{name}", rest)
            case [*prefix, _, name, "info", "lfs", "objects", "batch"] if name.endswith(".git") and prefix in ([], ["datasets"]):
                return Answer(content={"transfer": "basic", "objects": [self._wanted(**one) for one in json.loads(asked.body)["objects"]]})
        return Answer(404, {"error": f"the stand-in does not know {asked.method} {asked.path}"})

    def _created(self, wanted: dict[str, Any]) -> Answer:
        owner, kind = wanted["organization"] or "me", wanted.get("type", "model")
        name = f"{owner}/{wanted['name']}"
        url = f"{self.address}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if self.owners.get(owner) != "write":
            return Answer(403, {"error": f"You don't have the rights to create a {kind} under the namespace {owner!r}"})
        if (kind, name) in self.repositories:
            return Answer(409, {"error": "You already created this repo", "url": url})
        self.repositories[kind, name] = Repository(wanted.get("visibility") == "private")
        return Answer(content={"url": url, "name": name})

    def _checked(self, card: str) -> Answer:
        "Check a card's front matter as far as YAML goes."
        try:
            data = yaml.safe_load(card.split("---\n")[1])
        except (IndexError, yaml.YAMLError) as error:
            return Answer(400, {"errors": [{"message": str(error)}], "warnings": []})
        return Answer(content={"errors": [], "warnings": [] if isinstance(data, dict) else [{"message": "empty or missing yaml metadata"}]})

    def _of_repository(self, asked: Asked, kind: str, name: str, rest: list[str]) -> Answer:
        found = self.repositories.get((kind, name))
        if found is None:
            return Answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        may_write = self.owners.get(name.split("/")[0]) == "write"
        match asked.method, rest:
            case "GET", [] | ["revision", "main"]:
                return Answer(content={"id": name, "private": found.is_private, "sha": f"{len(found.commits):040}", "tags": []})
            case "GET", ["auth-check"]:
                return Answer(content={})
            case "GET", ["auth-check", "write"]:
                return Answer(content={}) if may_write else Answer(403, {"error": "Forbidden"})
            case "POST", ["preupload", "main"]:
                return Answer(content={"files": [self._mode(found, one["path"]) for one in json.loads(asked.body)["files"]]})
            case "POST", ["commit", "main"]:
                return self._committed(found, asked, name) if may_write else Answer(403, {"error": "Forbidden"})
        return Answer(404, {"error": f"the stand-in does not know {asked.method} {asked.path}"})

    def _mode(self, repository: Repository, path: str) -> dict[str, Any]:
        large, here = path.endswith(self.lfs_endings or ("\0",)), repository.files.get(path)
        oid = None
        if here is not None:
            oid = hashlib.sha256(here).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(here) + here).hexdigest()
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def _wanted(self, oid: str, size: int) -> dict[str, Any]:
        "Say how a file is to be sent; nothing where it is here already."
        if oid in self.objects:
            return {"oid": oid, "size": size}
        upload: dict[str, Any] = {"href": f"{self.address}/lfs/{oid}"}
        if size > PART:
            n_parts = -(-size // PART)
            upload["header"] = {"chunk_size": str(PART)} | {f"{n}": f"{self.address}/lfs/{oid}/{n}" for n in range(1, n_parts + 1)}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": f"{self.address}/lfs/{oid}/verify"}}}

    def _stored(self, asked: Asked, oid: str, part: str = "") -> Answer:
        if part == "verify":
            return Answer(content={}) if len(self.objects.get(oid, b"")) == json.loads(asked.body)["size"] else Answer(404, {})
        if part:
            self._parts.setdefault(oid, {})[int(part)] = asked.body
            return Answer(headers={"ETag": hashlib.md5(asked.body).hexdigest()})
        content = asked.body
        if asked.method == "POST":  # all parts are here
            content = b"".join(self._parts[oid][one["partNumber"]] for one in json.loads(asked.body)["parts"])
        if hashlib.sha256(content).hexdigest() != oid:
            return Answer(422, {"error": "the content is not what was announced"})
        self.objects[oid] = content
        return Answer(content={})

    def _committed(self, repository: Repository, asked: Asked, name: str) -> Answer:
        "Take all files of a commit, or none."
        lines = [json.loads(line) for line in asked.body.splitlines()]
        files: dict[str, bytes] = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile" and value["oid"] not in self.objects:
                return Answer(400, {"error": f"{value['path']}: its content has not come"})
            if line["key"] not in ("file", "lfsFile"):
                return Answer(400, {"error": f"the stand-in does not know {line['key']}"})
            files[value["path"]] = base64.b64decode(value["content"]) if line["key"] == "file" else self.objects[value["oid"]]
        repository.files |= files
        repository.commits.append({"summary": lines[0]["value"]["summary"], "paths": sorted(files)})
        oid = f"{len(repository.commits):040}"
        return Answer(content={"success": True, "commitOid": oid, "commitUrl": f"{self.address}/{name}/commit/{oid}"})
