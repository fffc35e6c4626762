"""The server's interface: masks, undo, limits, and what it refuses."""

import io
import threading
from dataclasses import replace

import numpy as np
import pytest
from fake_model import FakeModel
from PIL import Image

from ultrasam.geometry.rle import decode_mask
from ultrasam.web.engine import Engine
from ultrasam.web.limits import MEGABYTE, Limits

pytest.importorskip("fastapi", reason="the page needs the extra 'web'")
from starlette.testclient import TestClient

from ultrasam.web.server import make_app

LIMITS = Limits()
HEIGHT, WIDTH = 120, 160


def png(height=HEIGHT, width=WIDTH, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def model():
    return FakeModel(radius=10)


@pytest.fixture
def server(model):
    """Make a client of a server with some limits."""
    clients = []

    def start(**limits):
        engine = Engine(model, LIMITS.cache_bytes)
        client = TestClient(make_app(engine, replace(LIMITS, **limits)), base_url="http://127.0.0.1:8000",
                            raise_server_exceptions=False)  # fmt: skip
        client.engine = engine
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.engine.stop()
        client.close()


@pytest.fixture
def client(server):
    return server()


def opened(client, data=None, name="scan.png"):
    answer = client.post("/api/studies", params={"name": name}, content=png() if data is None else data)
    assert answer.status_code == 201, answer.text
    return answer.json()


def edit(client, study, frame=0, status=200, **change):
    answer = client.post(f"/api/studies/{study['id']}/frames/{frame}/edits", json=change)
    assert answer.status_code == status, answer.text
    return answer.json()


def objects(client, study, frame=0):
    return client.get(f"/api/studies/{study['id']}/frames/{frame}/objects").json()


def mask_of(described):
    return decode_mask({"size": [HEIGHT, WIDTH], "counts": described["mark"]["rle"]})


def disc(x, y, radius=10):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def refusal(answer, status):
    """The sentence of an answer that refuses; nothing else is in it."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    sentence = answer.json()["error"]
    assert len(sentence) > 20 and "Traceback" not in sentence and "\n" not in sentence
    return sentence


def test_a_file_is_described_and_shown(client):
    study = opened(client, name="Brust über 3.png")
    assert (study["name"], study["frames"], study["height"], study["width"]) == ("Brust über 3.png", 1, HEIGHT, WIDTH)
    picture = client.get(f"/api/studies/{study['id']}/frames/0/image")
    shown = np.asarray(Image.open(io.BytesIO(picture.content)).convert("RGB"))
    assert np.array_equal(shown, np.asarray(Image.open(io.BytesIO(png()))))


def test_clicks_make_and_correct_an_object(client, model):
    study = opened(client)
    first = edit(client, study, action="point", object=None, x=50, y=60)
    assert first["changed"] == 1 and first["undo"] and not first["redo"]
    assert np.array_equal(mask_of(first["object"]), disc(50, 60))
    assert first["object"]["class"] is None
    assert first["object"]["mark"]["score"] == 0.875
    second = edit(client, study, action="point", object=1, x=58, y=60, inside=False)
    assert np.array_equal(mask_of(second["object"]), disc(50, 60) & ~disc(58, 60))
    assert second["object"]["mark"]["points"] == [[50, 60, 1], [58, 60, 0]]
    assert model.asked[0].logits is None
    expected = np.float16(disc(50, 60).mean())
    assert model.asked[1].logits.shape == (16, 16) and (model.asked[1].logits == float(expected)).all()


def test_a_model_without_mask_prompts_is_given_none(client, model):
    model.mask_prompt = False
    study = opened(client)
    edit(client, study, action="point", object=None, x=50, y=60)
    edit(client, study, action="point", object=1, x=58, y=60)
    assert model.asked[1].logits is None


def test_boxes_are_cut_at_the_border_and_start_afresh(client, model):
    study = opened(client)
    edit(client, study, action="point", object=None, x=50, y=60)
    answer = edit(client, study, action="box", object=1, box=[150, 100, 140, -9])
    assert answer["object"]["mark"]["box"] == [140, 0, 150, 100]
    assert model.asked[1].logits is None and model.asked[1].points.tolist() == [[50, 60]]


def test_undo_and_redo_are_exact_over_objects_and_frames(client):
    study = opened(client)
    states = [objects(client, study)["objects"]]
    for change in (
        dict(action="point", object=None, x=50, y=60),
        dict(action="point", object=1, x=60, y=60),
        dict(action="box", object=None, box=[100, 20, 140, 60]),
        dict(action="name", object=2, text="  Left\n lobe "),
        dict(action="category", object=2, text="nodule"),
        dict(action="delete", object=1),
        dict(action="point", object=None, x=20, y=20),
    ):
        edit(client, study, **change)
        states.append(objects(client, study)["objects"])
    assert [item["name"] for item in states[-1]] == ["Left lobe", "Object 3"]
    for before in reversed(states[:-1]):
        edit(client, study, action="undo")
        assert objects(client, study)["objects"] == before
    assert "undo" in refusal(client.post(f"/api/studies/{study['id']}/frames/0/edits", json={"action": "undo"}), 409)
    for after in states[1:]:
        edit(client, study, action="redo")
        assert objects(client, study)["objects"] == after
    edit(client, study, action="undo")
    edit(client, study, action="point", object=None, x=20, y=20)
    assert not objects(client, study)["redo"]


def test_undo_says_on_which_frame_it_was(client):
    stream = io.BytesIO()
    np.save(stream, np.random.default_rng(0).integers(0, 255, (3, HEIGHT, WIDTH), dtype=np.uint8))
    study = opened(client, stream.getvalue(), "loop.npy")
    assert study["frames"] == 3
    edit(client, study, frame=0, action="point", object=None, x=50, y=60)
    edit(client, study, frame=2, action="point", object=1, x=70, y=60)
    found = objects(client, study, frame=1)["objects"][0]
    assert found["frames"] == [0, 2] and found["mark"] is None
    answer = edit(client, study, frame=1, action="undo")
    assert answer["frame"] == 2 and answer["object"]["frames"] == [0] and answer["object"]["mark"] is None
    assert "3 frames" in refusal(client.get(f"/api/studies/{study['id']}/frames/3/image"), 404)


def test_a_frame_is_encoded_once(client, model):
    study = opened(client)
    for _ in range(2):
        client.post(f"/api/studies/{study['id']}/frames/0/encode")
    edit(client, study, action="point", object=None, x=50, y=60)
    assert len(model.encoded) == 1
    client.delete(f"/api/studies/{study['id']}")
    assert not client.engine.is_encoded(type("Study", (), {"key": study["id"]}), 0)


def test_neighbours_are_encoded_ahead_within_the_bound(model):
    from ultrasam.io.scan import scan_from_array
    from ultrasam.web.study import Study

    frames = np.random.default_rng(0).integers(0, 255, (5, 40, 50), dtype=np.uint8)
    study = Study("key", scan_from_array(frames), 0, LIMITS)
    one = 40 * 50 * 3 + 6 * 64 * 4
    engine = Engine(model, cache_bytes=2 * one)
    done = threading.Semaphore(0)
    model.gate = lambda images: done.release()
    try:
        engine.session(study, 2)
        engine.prefetch(study, [3, 1])
        for _ in range(3):
            assert done.acquire(timeout=20)
        engine.session(study, 1)
        assert not engine.is_encoded(study, 2)
        assert engine.is_encoded(study, 3) and engine.is_encoded(study, 1)
    finally:
        engine.stop()


def test_a_click_is_answered_while_another_file_is_encoded(client, model):
    first = opened(client)
    edit(client, first, action="point", object=None, x=50, y=60)
    second = opened(client, png(seed=1))
    inside, go = threading.Event(), threading.Event()

    def gate(images):
        inside.set()
        assert go.wait(timeout=20)

    model.gate = gate
    slow = threading.Thread(target=client.post, args=(f"/api/studies/{second['id']}/frames/0/encode",))
    slow.start()
    try:
        assert inside.wait(timeout=20)
        answer = edit(client, first, action="point", object=1, x=60, y=60)
        assert np.array_equal(mask_of(answer["object"]), disc(50, 60) | disc(60, 60))
        assert slow.is_alive()
    finally:
        go.set()
        slow.join(timeout=20)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(action="point", x=160, y=60), "outside of the image of 160 x 120"),
        (dict(action="point", x=-1, y=60), "outside of the image"),
        (dict(action="point", x=None, y=60), "two numbers"),
        (dict(action="point", x=50, y=60, inside=False), "inside the object first"),
        (dict(action="box", box=[5, 5, 5, 40]), "less than a pixel"),
        (dict(action="box", box=[200, 5, 300, 40]), "less than a pixel"),
        (dict(action="box"), "four numbers"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(client, model, change, words):
    study = opened(client)
    answer = client.post(f"/api/studies/{study['id']}/frames/0/edits", json={"object": None, **change})
    assert words in refusal(answer, 422)
    assert objects(client, study)["objects"] == [] and not model.asked


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"action": "format"}', b'{"action": "point", "x": "NaN", "y": 1}',
     b'{"action": "point", "x": 1e999}', b'{"action": "delete"}',
     b'{"action": "delete", "object": -1}', b'{"action": "name", "object": 99999999999}',
     b'{"action": "box", "box": [1, 2, 3]}', b'{"action": "box", "box": [1, 2, NaN, 4]}', b"\xff\xfe"],
)  # fmt: skip
def test_malformed_edits_are_refused_with_a_sentence(client, body):
    study = opened(client)
    answer = client.post(f"/api/studies/{study['id']}/frames/0/edits", content=body,
                         headers={"content-type": "application/json"})  # fmt: skip
    refusal(answer, 422 if b"1e999" in body or b"NaN" in body else 400)


def test_wrong_addresses_are_refused(client):
    study = opened(client)
    other = study["id"][:-1] + ("a" if study["id"][-1] != "a" else "b")
    assert "not open" in refusal(client.get(f"/api/studies/{other}/frames/0/objects"), 404)
    assert "no object 7" in refusal(
        client.post(f"/api/studies/{study['id']}/frames/0/edits", json={"action": "delete", "object": 7}), 404
    )
    for path in ("/api/studies/..%2f..%2fetc%2fpasswd", "/static/..%2fapi.py", "/static/%2e%2e/api.py",
                 "/static/api.py", "/etc/passwd", "/docs", "/openapi.json", "/redoc"):  # fmt: skip
        refusal(client.get(path), 404)
    refusal(client.get(f"/api/studies/{study['id']}/frames/x/image"), 400)
    refusal(client.put("/"), 405)


def test_names_of_sessions_cannot_be_guessed(client):
    keys = {opened(client)["id"] for _ in range(3)}
    assert len(keys) == 3 and all(len(key) >= 32 for key in keys)


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"", "scan.png", "empty"),
        (png()[:200], "scan.png", "scan.png"),
        (b"<!doctype html><html>", "scan.png", "web page"),
        (b"\x93NUMPY\x01\x00" + b"(" * 100, "loop.npy", "loop.npy"),
        (b"MZ" + bytes(500), "setup.exe", "setup.exe"),
        (bytes(128) + b"DICM" + b"\xff" * 40, "study.dcm", "study.dcm"),
    ],
)
def test_unreadable_files_are_refused_with_their_name(client, data, name, words):
    answer = client.post("/api/studies", params={"name": name}, content=data)
    assert words in refusal(answer, 400 if data == b"" else 422)


@pytest.mark.parametrize("name", ["../../etc/passwd.png", "..\\..\\boot.png", "/etc/passwd.png", "C:\\x\\passwd.png",
                                  ".png", "a\x00b\r\nc.png", "x" * 1900 + ".png", ""])  # fmt: skip
def test_names_of_files_are_no_paths(client, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = opened(client, name=name)["name"]
    assert shown and len(shown) <= 120
    assert not set(shown) & set("/\\\0\r\n") and not shown.startswith(".")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_too_large_is_refused_before_it_is_read(server):
    client = server(upload_bytes=1000)
    read = []

    def parts():
        for _ in range(100):
            read.append(1)
            yield bytes(500)

    assert "1000" not in refusal(client.post("/api/studies", content=parts()), 413)
    assert len(read) <= 100
    answer = client.post("/api/studies", content=bytes(1001))
    assert "--max-upload-mb" in refusal(answer, 413)


def test_the_oldest_file_makes_room_and_says_so(server):
    client = server(sessions=2)
    first, second = opened(client), opened(client)
    client.get(f"/api/studies/{first['id']}")
    opened(client)
    assert "more than 2 files" in refusal(client.get(f"/api/studies/{second['id']}"), 410)
    assert client.get(f"/api/studies/{first['id']}").status_code == 200


def test_memory_is_bounded(server):
    size = len(png()) + 3 * HEIGHT * WIDTH
    client = server(memory_bytes=2 * size + 1000, upload_bytes=2 * size)
    first = opened(client)
    opened(client)
    opened(client)
    assert "memory" in refusal(client.get(f"/api/studies/{first['id']}"), 410)
    stream = io.BytesIO()
    Image.new("L", (600, 400)).save(stream, "PNG")
    large = client.post("/api/studies", params={"name": "large.png"}, content=stream.getvalue())
    assert "at most" in refusal(large, 413)


def test_idle_files_are_closed_and_say_so():
    from ultrasam.io.scan import scan_from_array
    from ultrasam.web.limits import WebError
    from ultrasam.web.store import Store

    now, closed = [0.0], []
    store = Store(replace(LIMITS, idle_seconds=600), closed.append, lambda: now[0])
    scan = scan_from_array(np.zeros((8, 8), np.uint8))
    first, second = store.add(scan, 10), store.add(scan, 10)
    now[0] = 500
    store.get(first.key)
    now[0] = 700
    with pytest.raises(WebError, match="after 10 minutes without use") as caught:
        store.get(second.key)
    assert caught.value.status == 410 and closed == [second] and second.closed
    assert store.get(first.key) is first


def test_idle_files_are_closed_while_no_request_comes():
    from ultrasam.io.scan import scan_from_array
    from ultrasam.web.store import Store

    closed = threading.Event()
    now = [0.0]
    store = Store(replace(LIMITS, idle_seconds=600), lambda study: closed.set(), lambda: now[0])
    store.add(scan_from_array(np.zeros((8, 8), np.uint8)), 10)
    with store.expiring(every=0.01):
        assert not closed.wait(0.1)
        now[0] = 700
        assert closed.wait(20)
    assert len(store) == 0


def test_a_frame_that_was_left_is_not_encoded(model):
    from ultrasam.io.scan import scan_from_array
    from ultrasam.web.study import Study

    study = Study("key", scan_from_array(np.zeros((2, 8, 8), np.uint8)), 0, LIMITS)
    engine = Engine(model, LIMITS.cache_bytes)
    assert engine.session_if(study, 0, lambda: False) is None and not model.encoded
    assert engine.session_if(study, 0, lambda: True) is not None and len(model.encoded) == 1
    assert engine.session_if(study, 0, lambda: False) is not None


def test_objects_and_points_are_limited(server):
    client = server(objects=2, points=2)
    study = opened(client)
    edit(client, study, action="point", object=None, x=10, y=10)
    edit(client, study, action="point", object=1, x=12, y=10)
    assert "2 points" in edit(client, study, status=409, action="point", object=1, x=13, y=10)["error"]
    edit(client, study, action="point", object=None, x=50, y=10)
    assert "delete one" in edit(client, study, status=409, action="point", object=None, x=90, y=10)["error"]


def test_a_failure_of_the_server_says_nothing_of_its_inside(client, model):
    study = opened(client)

    def broken(*_, **__):
        raise RuntimeError("secret")

    model.encode = broken
    answer = client.post(f"/api/studies/{study['id']}/frames/0/encode")
    assert "secret" not in refusal(answer, 500)


def test_bound_constants_are_sensible():
    assert LIMITS.upload_bytes == 256 * MEGABYTE <= LIMITS.memory_bytes
