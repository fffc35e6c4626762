"""The server with a real network: its answers are those of the Python interface."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ultrasam.geometry.rle import decode_mask
from ultrasam.inference import Prompt
from ultrasam.web.benchmark import main as run_benchmark
from ultrasam.web.benchmark import measure, random_model
from ultrasam.web.engine import Engine
from ultrasam.web.limits import Limits

pytest.importorskip("fastapi", reason="the page needs the extra 'web'")
from starlette.testclient import TestClient

from ultrasam.web.server import make_app

HEIGHT, WIDTH = 90, 120


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return random_model("vit_tiny", 128)


@pytest.fixture
def client(model):
    engine = Engine(model, 1 << 26)
    with TestClient(make_app(engine, Limits()), base_url="http://localhost:8000") as client:
        yield client
    engine.stop()


@pytest.fixture
def pixels():
    """A bright square field with a black border around it and a letter in the corner."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[10:80, 20:100] = np.random.default_rng(0).integers(40, 255, (70, 80, 1), dtype=np.uint8)
    image[2:6, 2:5] = 255
    return image


def opened(client, pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    key = client.post("/api/studies", params={"name": "a.png"}, content=stream.getvalue()).json()["id"]
    return f"/api/studies/{key}"


def edit(client, base, **change):
    return client.post(f"{base}/frames/0/edits", json=change)


def test_masks_are_those_of_a_session(client, model, pixels):
    base = opened(client, pixels)
    session = model.session(pixels)
    first = edit(client, base, action="point", object=None, x=60, y=40).json()["object"]
    expected = session.predict(points=[[60, 40]])
    mask = decode_mask({"size": [HEIGHT, WIDTH], "counts": first["mark"]["rle"]})
    assert np.array_equal(mask, expected.masks[0])
    assert first["mark"]["score"] == pytest.approx(float(expected.scores[0]), abs=1e-4)
    assert first["mark"]["measures"]["area_px"] == int(mask.sum())
    second = edit(client, base, action="point", object=1, x=30, y=60, inside=False).json()["object"]
    logits = expected.logits[0].half().float()
    points, labels = np.float32([[60, 40], [30, 60]]), np.int64([1, 0])
    corrected = session.predict(prompts=[Prompt(points, labels, None, logits)])
    mask = decode_mask({"size": [HEIGHT, WIDTH], "counts": second["mark"]["rle"]})
    assert np.array_equal(mask, corrected.masks[0])


def test_the_field_of_view_limits_clicks_until_it_is_switched_off(client, model, pixels):
    if model.session(pixels).field is None:
        pytest.skip("no field of view is found in the picture of this test")
    base = opened(client, pixels)
    answer = edit(client, base, action="point", object=None, x=3, y=3)
    assert answer.status_code == 422 and 'switch "Field of view only" off' in answer.json()["error"]
    assert client.post(f"{base}/clip/off").status_code == 204
    assert client.get(base).json()["clip"] is False
    assert edit(client, base, action="point", object=None, x=3, y=3).status_code == 200
    assert client.post(f"{base}/clip/on").status_code == 204
    assert edit(client, base, action="point", object=None, x=3, y=3).status_code == 422


def test_benchmark_times_every_kind(model):
    timings = measure(model, 2, size=(60, 80))
    assert [len(timing.values) for timing in timings] == [2, 2, 8, 2]
    assert all(value > 0 for timing in timings for value in timing.values)
    assert timings[0].p95 <= max(timings[0].values)


@pytest.mark.parametrize(("options", "words"), [(["--clicks", "0"], "--clicks"), (["--arch", "vit_x"], "vit_x"),
                                                (["--image-size", "100"], "multiple of 16")])  # fmt: skip
def test_benchmark_refuses_wrong_options(options, words, capsys):
    assert run_benchmark(options) == 2
    assert words in capsys.readouterr().out
