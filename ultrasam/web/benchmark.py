"""How long a click takes: over real HTTP, from sending it to the mask in the client's memory."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import numpy as np

from ultrasam.errors import ConfigError, UltraSamError

if TYPE_CHECKING:
    from ultrasam.inference import UltraSam

TARGET_MS = 150.0
_WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one kind of request.

    Attributes:
        name: of the kind.
        values: one a request.
    """

    name: str
    values: tuple[float, ...]

    def row(self) -> str:
        """Return name, number, median, 95th percentile and largest."""
        median, high, most = np.percentile(self.values, [50, 95, 100])
        return f"{self.name:<34} {len(self.values):>5} {median:>9.1f} {high:>9.1f} {most:>9.1f}"

    @property
    def p95(self) -> float:
        """95th percentile in milliseconds."""
        return float(np.percentile(self.values, 95))


class Client:
    """One reader of the page, on a connection that stays open as a browser's does."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._connection = HTTPConnection(*address, timeout=300)
        self.key = ""

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Send a request and return what its JSON holds; None where there is none."""
        headers = {"content-type": "application/json"} if body is not None else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise ConfigError(f"{method} {path.split('/')[-1]} was answered {answer.status}: {data[:300].decode()}")
        return json.loads(data) if "json" in answer.headers.get("content-type", "") else None

    def open(self, data: bytes) -> None:
        """Open a file and encode its first frame."""
        self.key = self.call("POST", "/api/studies?name=benchmark.png", data)["id"]
        self.call("POST", f"/api/studies/{self.key}/frames/0/encode", b"")

    def click(self, number: int | None, x: int, y: int, inside: bool = True) -> int:
        """Click once and return the number of the object."""
        edit = {"action": "point", "object": number, "x": x, "y": y, "inside": inside}
        return int(self.act(edit)["changed"])

    def act(self, edit: dict[str, Any]) -> Any:
        """Send an edit."""
        return self.call("POST", f"/api/studies/{self.key}/frames/0/edits", json.dumps(edit).encode())


def measure(model: UltraSam, clicks: int, size: tuple[int, int] = (600, 800), seed: int = 0) -> list[Timing]:
    """Time clicks of one reader, and of two at once.

    Args:
        model: the network.
        clicks: of each kind.
        size: height and width of the image in pixels.
        seed: of the image and the places.
    """
    import cv2

    rng = np.random.default_rng(seed)
    pixels = cv2.GaussianBlur(rng.integers(0, 255, size, dtype=np.uint8), (0, 0), 6)
    data = bytes(cv2.imencode(".png", cv2.normalize(pixels, pixels, 0, 255, cv2.NORM_MINMAX))[1])
    with _serving(model) as address:
        first, second = Client(address), Client(address)
        first.open(data)
        second.open(data)
        _clicks(first, _WARM_UP, size, rng)
        new, correction = _clicks(first, clicks, size, rng)
        found: list[Timing] = []
        other = threading.Thread(target=lambda: found.extend(_clicks(second, clicks, size, np.random.default_rng(1))))
        other.start()
        together = _clicks(first, clicks, size, rng)
        other.join()
        both = Timing("either of two readers at once", tuple(v for t in (*together, *found) for v in t.values))
        undo = []
        for _ in range(min(clicks, 50)):
            start = time.perf_counter()
            first.act({"action": "undo"})
            undo.append(1000 * (time.perf_counter() - start))
        return [new, correction, both, Timing("undo", tuple(undo))]


def _clicks(client: Client, count: int, size: tuple[int, int], rng: np.random.Generator) -> list[Timing]:
    """Return timings of first clicks and of corrections of the same objects; the objects are deleted again."""
    new, correction = [], []
    height, width = size
    for _ in range(count):
        places = rng.integers(0, [width, height], (2, 2)).tolist()
        start = time.perf_counter()
        number = client.click(None, *places[0])
        middle = time.perf_counter()
        client.click(number, *places[1])
        end = time.perf_counter()
        client.act({"action": "delete", "object": number})
        new.append(1000 * (middle - start))
        correction.append(1000 * (end - middle))
    return [Timing("first click of an object", tuple(new)), Timing("click that corrects", tuple(correction))]


@contextmanager
def _serving(model: UltraSam) -> Iterator[tuple[str, int]]:
    """Serve on a free port of this machine."""
    from ultrasam.web import server
    from ultrasam.web.engine import Engine
    from ultrasam.web.limits import Limits

    server.require_packages()
    limits = Limits()
    engine = Engine(model, limits.cache_bytes)
    ready = threading.Event()
    with server.bind("127.0.0.1", 0) as taken:
        running = server.make_server(server.make_app(engine, limits), ready.set)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        if not ready.wait(timeout=60):
            raise ConfigError("the server of the benchmark does not start; run ultrasam web to see why")
        yield "127.0.0.1", int(taken.getsockname()[1])
        running.should_exit = True
        thread.join(timeout=30)
        engine.stop()


def random_model(arch: str, image_size: int | None) -> UltraSam:
    """Return a network with random weights, which is as fast as a trained one.

    Raises:
        ConfigError: an unknown architecture or a size that does not fit.
    """
    from types import SimpleNamespace

    from ultrasam.inference import UltraSam
    from ultrasam.modeling.build import build_sam

    try:
        sam = build_sam(arch, image_size).eval().requires_grad_(False)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return UltraSam(SimpleNamespace(sam=sam, passes=("single",), mask_prompt=True, card={"name": f"random {arch}"}))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 1 where the 95th percentile of a reader's clicks is above the target."""
    parser = argparse.ArgumentParser(description="Time clicks on the page over HTTP.")
    parser.add_argument("--weights", help="file or name; default: random weights of --arch")
    parser.add_argument("--arch", default="vit_tiny", help="architecture of random weights (default: %(default)s)")
    parser.add_argument("--image-size", type=int, help="side of its square; default: the architecture's own")
    parser.add_argument("--clicks", type=int, default=100, help="of each kind (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        if options.clicks < 1:
            raise ConfigError(f"--clicks must be at least 1, got {options.clicks}")
        if options.weights:
            from ultrasam.web.server import load_model

            model = load_model(options.weights, "cpu")
        else:
            model = random_model(options.arch, options.image_size)
        timings = measure(model, options.clicks)
    except UltraSamError as error:
        print(f"error: {error}")
        return 2
    print(f"{'600 x 800 pixels, milliseconds':<34} {'n':>5} {'median':>9} {'95 %':>9} {'largest':>9}")
    for timing in timings:
        print(timing.row())
    worst = max(timing.p95 for timing in timings[:2])
    print(f"95th percentile of one reader's clicks: {worst:.1f} ms, target {TARGET_MS:.0f} ms")
    return int(worst > TARGET_MS)
