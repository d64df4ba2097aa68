"Variables that were set once and forgotten: each at fault is named in one line before anything is asked, and no file of a folder above chooses who gets the key."

import os

import pytest
from scripted_server import BatchScript, ScriptedServer, echo

from zero_shot_distill.core.progress import Progress
from zero_shot_distill.store.request import Request
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher.client import AskOptions, TeacherClient
from zero_shot_distill.teacher.settings import TeacherSettings, open_teacher
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, TeacherError, TeacherSettingsError

KEY = "sk-this-key-is-secret"


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith(("SSL_CERT", "REQUESTS_CA", "OPENAI_")):
            monkeypatch.delenv(name)


def ask(address: str, tmp_path, via: str):
    request = Request.build("m", [{"role": "user", "content": "Count on from 1."}], max_tokens=3)
    limits = RequestLimits(timeout_s=5, n_retries=0)
    with ResponseStore(tmp_path / "s.sqlite") as store, HostedTeacher("m", address, KEY, limits) as teacher:
        return TeacherClient(teacher, store, options=AskOptions(via=via)).ask([request])


AT_FAULT = [
    ({"ALL_PROXY": "socks5://127.0.0.1:9"}, r"^ALL_PROXY=socks5://127\.0\.0\.1:9: SOCKS proxies are not supported; name a proxy"),
    ({"all_proxy": "socks5h://u:hidden@127.0.0.1:9"}, r"^all_proxy=socks5h://127\.0\.0\.1:9: SOCKS"),
    ({"HTTPS_PROXY": "socks4://h"}, r"^HTTPS_PROXY=socks4://h: SOCKS"),
    ({"HTTP_PROXY": "nonsense://x"}, "^HTTP_PROXY: is no address of a proxy"),
    ({"HTTP_PROXY": "http://["}, "^HTTP_PROXY: is no address of a proxy"),
    ({"https_proxy": "http://h:port"}, "^https_proxy: is no address of a proxy"),
    ({"SSL_CERT_FILE": "/nowhere.pem"}, r"^SSL_CERT_FILE=/nowhere\.pem: No such file or directory; name a file of certificates"),
    ({"SSL_CERT_FILE": os.devnull}, "^SSL_CERT_FILE=/dev/null: no certificate is in it"),
    ({"SSL_CERT_FILE": "/"}, "^SSL_CERT_FILE=/: "),
]


@pytest.mark.parametrize("via", ["chat", "batch"])
@pytest.mark.parametrize(("variables", "said"), AT_FAULT, ids=[" ".join(map("=".join, one.items())) for one, _ in AT_FAULT])
def test_a_variable_at_fault_is_named(variables, said, via, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with ScriptedServer(echo) as server, pytest.raises(TeacherSettingsError, match=said) as told:
        ask(server.base_url, tmp_path, via)
    assert "\n" not in str(told.value)
    assert "hidden" not in str(told.value)
    assert len(server.ledger) == 0


def test_certificates_of_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    with pytest.raises(TeacherSettingsError, match=r"^SSL_CERT_DIR=/nowhere: no such folder"):
        ask("https://127.0.0.1:9/v1", tmp_path, "chat")


@pytest.mark.parametrize("via", ["chat", "batch"])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_a_proxy_that_refuses_is_named(name, via, tmp_path, monkeypatch):
    monkeypatch.setenv(name, "http://user:hidden@127.0.0.1:9")
    with ScriptedServer(echo) as server, pytest.raises(TeacherError) as told:
        ask(server.base_url, tmp_path, via)
    assert f"cannot be reached through {name}=http://127.0.0.1:9 (" in str(told.value)
    assert "set NO_PROXY=127.0.0.1, then run again" in str(told.value)
    assert "hidden" not in str(told.value)


def test_a_proxy_for_other_addresses_is_none_of_this(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ScriptedServer(echo, batch=BatchScript(validating_s=0, in_progress_s=0)) as server:
        assert len(ask(server.base_url, tmp_path, "chat").responses) == 1


class Lines(Progress):
    "Keeps what was said."

    def __init__(self):
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def message(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("has_key", [True, False])
def test_a_file_above_chooses_nothing(has_key, tmp_path, monkeypatch):
    "Only the file of the current folder is read, and the run says what it takes from it."
    (below := tmp_path / "below").mkdir()
    (tmp_path / ".env").write_text("OPENAI_BASE_URL=http://evil.example/v1\nOPENAI_API_KEY=sk-of-the-file-1234\n")
    if has_key:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(below)
    opened = open_teacher(TeacherSettings(model="m"), said := Lines())
    assert opened.teacher.base_url == "https://api.openai.com/v1"
    assert said.lines == []
    monkeypatch.chdir(tmp_path)
    opened = open_teacher(TeacherSettings(model="m"), said)
    assert opened.teacher.base_url == "http://evil.example/v1"
    gets = ", which gets the key of the environment" if has_key else ""
    names = "OPENAI_BASE_URL" if has_key else "OPENAI_BASE_URL, OPENAI_API_KEY"
    assert said.lines == [f"  {names} from .env in this folder (http://evil.example/v1{gets})"]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://mine.example/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said.lines.clear()
    assert open_teacher(TeacherSettings(model="m"), said).teacher.base_url == "http://mine.example/v1"
    assert said.lines == []


@pytest.mark.parametrize("address", ["  http://h/v1 ", "\thttp://h/v1\n"])
def test_spaces_around_an_address_are_left_out(address):
    assert HostedTeacher("m", address, KEY).shown_url == "http://h/v1"


ODD_ADDRESSES = ["http://[::1/v1", "http://h:abc/v1", "http://h:99999/v1", "http:///v1", "h/v1", "ftp://h", "http://h h/v1", "http://\x1b[31m/v1", "//h/v1", "http://.../v1", "file:///etc/passwd", "http://h\udcff/v1"]  # fmt: skip


@pytest.mark.parametrize("address", ODD_ADDRESSES, ids=range(len(ODD_ADDRESSES)))
def test_an_address_that_is_none(address):
    with pytest.raises(TeacherSettingsError, match="OPENAI_BASE_URL") as told:
        HostedTeacher("m", address, KEY)
    assert str(told.value).isprintable()


def test_a_proxy_that_is_turned_off_is_no_fault():
    from zero_shot_distill.teacher.environment import environment_fault

    variables = {"ALL_PROXY": "socks5://proxy:1080", "NO_PROXY": "*"}
    assert environment_fault("http://localhost:8000/v1", variables) == ""
    assert "SOCKS" in environment_fault("http://localhost:8000/v1", variables | {"NO_PROXY": "example.org"})
