"""``ultrasam web``: what it prints, and why it does not start."""

import builtins
import re
import socket
from pathlib import Path

import pytest
from fake_model import FakeModel

from ultrasam.cli.main import main as ultrasam
from ultrasam.cli.web import build_parser
from ultrasam.web import server

pytest.importorskip("fastapi", reason="the page needs the extra 'web'")
DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "web.md"


@pytest.fixture
def started(monkeypatch):
    """Commands that load no weights and end when they would serve; the list of the servers that were made."""
    made = []

    class Server:
        def __init__(self, app, on_ready):
            self.app, self.on_ready = app, on_ready
            made.append(self)

        def run(self, sockets):
            self.sockets = sockets
            self.on_ready()

    monkeypatch.setattr(server, "make_server", Server)
    monkeypatch.setattr(server, "load_model", lambda weights, device: FakeModel())
    return made


def test_the_last_line_is_the_address(started, capsys):
    assert ultrasam(["web", "--port", "0"]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", out.strip().splitlines()[-1]) and err == ""
    assert len(started) == 1


def test_another_host_is_warned_of(started, capsys):
    assert ultrasam(["web", "--host", "0.0.0.0", "--port", "0"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("warning: ") and err.count("\n") == 1 and "password" in err
    assert out.startswith("http://127.0.0.1:")


def test_a_port_in_use_is_one_sentence(started, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ultrasam(["web", "--port", str(port)]) == 2
    out, err = capsys.readouterr()
    assert err == f"error: port {port} of 127.0.0.1 is in use; choose another with --port\n" and out == ""
    assert not started


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "70000"], "--port"),
        (["--port", "-1"], "--port"),
        (["--max-upload-mb", "0"], "--max-upload-mb"),
        (["--idle-minutes", "-5"], "--idle-minutes"),
        (["--host", "192.0.2.1", "--port", "0"], "192.0.2.1"),
    ],
)
def test_wrong_options_are_one_sentence(started, options, words, capsys):
    assert ultrasam(["web", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err
    assert not started


def test_missing_packages_are_said(monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args, **more):
        if name == "uvicorn":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert ultrasam(["web", "--port", "0"]) == 2
    assert "pip install 'ultrasam[web]'" in capsys.readouterr().err


def test_wrong_weights_are_one_sentence(capsys, tmp_path):
    assert ultrasam(["web", "--port", "0", "--weights", str(tmp_path / "none.pth")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "none.pth" in err


def test_options_are_documented_and_exist(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    real = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    cells = [line.split("|")[1] for line in DOCUMENTATION.read_text(encoding="utf-8").splitlines()
             if line.startswith("| `--")]  # fmt: skip
    assert {option for cell in cells for option in re.findall(r"--[a-z][a-z-]+", cell)} == real
