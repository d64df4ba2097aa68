"""A scripted fault server: no teacher, but an OpenAI-compatible address on loopback that fails on demand.

It exists because a real provider does not fail when a test wants it to. Its replies say what they are, so that none can pass for a teacher's.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = "scripted-fault-server"


@dataclass(frozen=True)
class Scripted:
    "One scripted reply."

    status: int = 200
    text: str = f"{NAME}: no teacher wrote this"  # the completion
    error: str = "scripted fault"  # the message of an error status
    code: str | None = None  # the error's machine-readable code, e.g. "insufficient_quota"
    body: bytes | None = None  # sent instead of JSON, verbatim
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hang_up: bool = False  # close the connection instead of replying


class ScriptedServer:
    "`with ScriptedServer(script) as server:` where `script(body, n)` says how to answer the n-th request (from 0)."

    def __init__(self, script: Callable[[dict[str, Any], int], Scripted] = lambda body, n: Scripted()):
        self.script = script
        self.bodies: list[dict[str, Any]] = []  # every request, in order of arrival
        self.authorizations: list[str | None] = []
        self.n_at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version = NAME

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    n = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.authorizations.append(self.headers["Authorization"])
                    outer.n_at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.n_at_once)
                try:
                    scripted = outer.script(body, n)
                    time.sleep(scripted.delay_s)
                finally:
                    with outer._lock:
                        outer.n_at_once -= 1
                self._answer(scripted, n)

            def _answer(self, scripted: Scripted, n: int) -> None:
                if scripted.hang_up:
                    self.close_connection = True
                    return
                payload = scripted.body if scripted.body is not None else json.dumps(outer._content(scripted, n)).encode()
                try:
                    self.send_response(scripted.status)
                    for name, value in {
                        "Content-Type": scripted.content_type,
                        "Content-Length": str(len(payload)),
                        **scripted.headers,
                    }.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # whoever asked has left

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @staticmethod
    def _content(scripted: Scripted, n: int) -> dict[str, Any]:
        if scripted.status >= 400:
            return {"error": {"message": scripted.error, "type": "scripted", "code": scripted.code}}
        message = {"role": "assistant", "content": scripted.text}
        return {
            "id": f"scripted-{n}",
            "object": "chat.completion",
            "created": 0,
            "model": NAME,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }

    def __enter__(self) -> "ScriptedServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
