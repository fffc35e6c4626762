"""Following objects: made-up loops whose masks are known, and a model that answers by brightness."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from ultrasam.errors import ConfigError, DataError, PromptError
from ultrasam.geometry.rle import decode_mask
from ultrasam.inference import propagate as module
from ultrasam.inference.masks import Masks
from ultrasam.inference.model import UltraSam
from ultrasam.inference.prompt import Prompt
from ultrasam.inference.propagate import LossRule, box_with_margin, describe, propagate
from ultrasam.inference.propagate_write import PARTS, write_propagation
from ultrasam.io.scan import open_scan, scan_from_array
from ultrasam.modeling.build import build_sam

HEIGHT, WIDTH = 60, 90


def disc(x, y, radius, height=HEIGHT, width=WIDTH):
    rows, columns = np.mgrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def loop(masks, brightness=200):
    frames = np.zeros((len(masks), *masks[0].shape), np.uint8)
    frames[np.stack(masks)] = brightness
    return frames


class StubModel:
    """Gives the bright pixels in the box, with a known score; remembers what it was asked."""

    def __init__(self, passes=(), mask_prompt=True, score=0.9):
        self.passes, self.mask_prompt, self.score = passes, mask_prompt, score
        self.asked = []

    def session(self, image, embedding=None, spacing=None, name="", clip=True):
        return StubSession(self, image, clip)


class StubSession:
    def __init__(self, model, image, clip):
        self.model, self.image, self.clip = model, image, clip
        self.field = None

    def predict(self, *, prompts):
        self.model.asked.append((int(self.image[0, 0, 0]), prompts, self.clip))
        masks = np.zeros((len(prompts), *self.image.shape[:2]), bool)
        for mask, prompt in zip(masks, prompts, strict=True):
            x1, y1, x2, y2 = (int(value) for value in (*np.floor(prompt.box[:2]), *np.ceil(prompt.box[2:])))
            mask[y1:y2, x1:x2] = self.image[y1:y2, x1:x2, 0] > 128
        scores = np.full(len(prompts), self.model.score, np.float32)
        logits = torch.full((len(prompts), 4, 4), float(self.image[0, 0, 0]))
        return Masks(masks, scores, logits, np.zeros((len(prompts), 4), np.float32), self.image)


def box_of(mask):
    return Prompt(box=box_with_margin(mask, 0.1))


def numbered(frames):
    """Write the number of a frame into its first pixel."""
    frames[:, 0, 0] = np.arange(len(frames))
    return frames


@pytest.fixture
def moving():
    """A disc that moves and grows, less than the smallest margin of its box, in 14 frames."""
    masks = [disc(30 + t, 25 + t, 9 + 0.3 * t) for t in range(14)]
    return masks, scan_from_array(numbered(loop(masks)), spacing=(0.5, 0.25), name="moving.npy")


def test_a_moving_disc_is_followed_both_ways(moving):
    masks, scan = moving
    model = StubModel()
    results = list(propagate(model, scan, 5, [box_of(masks[5])]))
    assert [result.frame for result in results] == [5, *range(6, 14), 4, 3, 2, 1, 0]
    for result in results:
        assert np.array_equal(decode_mask(result.rles[0]), masks[result.frame])
        assert np.array_equal(result.masks(HEIGHT, WIDTH)[0], masks[result.frame])
        assert result.areas[0] == masks[result.frame].sum()
        assert result.scores[0] == pytest.approx(0.9) and result.lost == {}
        assert result.prompted == (result.frame == 5)
    assert describe(results) == ["object 1: 14 frames, 0 to 13"]
    # Each frame was asked with the box and the logits of the frame before it in time or against it.
    for number, (prompt,), clip in model.asked[1:]:
        before = number - 1 if number > 5 else number + 1
        assert np.array_equal(prompt.box, box_with_margin(masks[before], 0.1))
        assert prompt.logits.unique().tolist() == [before]
        assert clip is False
    assert model.asked[0][2] is True


@pytest.mark.parametrize(
    ("direction", "frames"), [("forward", [5, 6, 7, 8, 9, 10, 11, 12, 13]), ("backward", [5, 4, 3, 2, 1, 0])]
)
def test_one_direction_alone(moving, direction, frames):
    masks, scan = moving
    results = propagate(StubModel(), scan, 5, [box_of(masks[5])], direction=direction)
    assert [result.frame for result in results] == frames


def test_the_first_and_last_frame_have_one_neighbour(moving):
    masks, scan = moving
    for frame, other in ((0, list(range(1, 14))), (13, list(range(12, -1, -1)))):
        found = [result.frame for result in propagate(StubModel(), scan, frame, [box_of(masks[frame])])]
        assert found == [frame, *other]


def test_a_vanished_disc_is_lost_and_said():
    masks = [disc(30, 30, 10) if t < 6 else np.zeros((HEIGHT, WIDTH), bool) for t in range(12)]
    scan = scan_from_array(numbered(loop(masks)), name="vanishing.npy")
    model = StubModel()
    results = list(propagate(model, scan, 2, [box_of(masks[2])], direction="forward"))
    assert [result.frame for result in results] == [2, 3, 4, 5, 6]
    assert results[-1].lost == {0: "nothing was found"}
    assert results[-1].rles == (None,) and np.isnan(results[-1].scores[0]) and results[-1].areas[0] == 0
    assert [number for number, _, _ in model.asked] == [2, 3, 4, 5, 6]
    assert describe(results) == ["object 1: 4 frames, 2 to 5; lost in frame 6: nothing was found"]


def test_one_object_is_lost_and_the_other_goes_on():
    left = [disc(20, 30, 10) if t < 4 else np.zeros((HEIGHT, WIDTH), bool) for t in range(8)]
    right = [disc(65, 30 - t, 8) for t in range(8)]
    scan = scan_from_array(numbered(loop([a | b for a, b in zip(left, right, strict=True)])), name="two.npy")
    model = StubModel()
    results = list(propagate(model, scan, 0, [box_of(left[0]), box_of(right[0])]))
    assert [result.frame for result in results] == list(range(8))
    assert results[4].lost == {0: "nothing was found"}
    for result in results:
        assert (result.rles[0] is None) == (result.frame >= 4)
        assert np.array_equal(decode_mask(result.rles[1]), right[result.frame])
    assert [len(prompts) for _, prompts, _ in model.asked] == [2, 2, 2, 2, 2, 1, 1, 1]


def test_reasons_are_those_of_the_rule():
    rule = LossRule(min_iou=0.5, max_area_change=2.0, min_overlap=0.3)
    before = np.zeros((10, 20), bool)
    before[2:6, 2:6] = True
    assert rule.reason(before, before, 0.5, 0.6) == ""
    assert rule.reason(before, before, 0.49, 0.6) == "the predicted IoU 0.49 is below 0.5"
    assert "predicted IoU nan" in rule.reason(before, before, float("nan"), 0.6)
    assert rule.reason(before, before, 0.75, 0.94) == ""
    assert rule.reason(before, before, 0.73, 0.94) == "the predicted IoU fell from 0.94 to 0.73, by more than 0.2"
    larger = np.zeros_like(before)
    larger[2:6, 2:10] = True
    assert rule.reason(larger, before, 1.0, 1.0) == ""
    larger[6, 2] = True
    assert rule.reason(larger, before, 1.0, 1.0) == "the area changed from 16 to 33 pixels, more than 2 times"
    assert rule.reason(before, larger, 1.0, 1.0) == "the area changed from 33 to 16 pixels, more than 2 times"
    # Shifts by 1, 2 and 3 of 4 columns: IoU 12/20, 8/24 and 4/28.
    for shift, lost in ((1, False), (2, False), (3, True)):
        assert bool(rule.reason(np.roll(before, shift, axis=1), before, 1.0, 1.0)) is lost
    assert "overlap 0.14 with" in rule.reason(np.roll(before, 3, axis=1), before, 1.0, 1.0)
    assert rule.reason(np.zeros_like(before), before, 1.0, 1.0) == "nothing was found"


def test_a_low_score_stops_at_once(moving):
    masks, scan = moving
    results = list(propagate(StubModel(score=0.3), scan, 5, [box_of(masks[5])]))
    assert [result.frame for result in results] == [5, 6, 4]
    assert all("0.30 is below 0.5" in result.lost[0] for result in results[1:])
    rule = LossRule(min_iou=0.2)
    assert len(list(propagate(StubModel(score=0.3), scan, 5, [box_of(masks[5])], rule=rule))) == 14


def test_doubt_after_certainty_is_a_loss(moving):
    """A network that is asked with a box answers where the object is gone too, with a lower score."""
    masks, scan = moving

    class Doubting(StubModel):
        def session(self, image, **options):
            self.score = [0.95, 0.9, 0.92, 0.88, 0.7][max(0, min(int(image[0, 0, 0]) - 5, 4))]
            return super().session(image, **options)

    results = list(propagate(Doubting(), scan, 5, [box_of(masks[5])], direction="forward"))
    assert [result.frame for result in results] == [5, 6, 7, 8, 9]
    assert results[-1].lost == {0: "the predicted IoU fell from 0.91 to 0.70, by more than 0.2"}


@pytest.mark.parametrize(
    ("passes", "known", "asked", "expected"),
    [
        ((), True, None, True),
        (("single", "multi"), True, None, True),
        (("single",), True, None, False),
        ((), False, None, False),
        (("single",), True, True, True),
        ((), True, False, False),
    ],
)
def test_masks_are_passed_where_the_weights_know_them(moving, passes, known, asked, expected):
    masks, scan = moving
    model = StubModel(passes, known)
    list(propagate(model, scan, 12, [box_of(masks[12])], direction="forward", mask_prompt=asked))
    assert (model.asked[1][1][0].logits is not None) is expected


def test_backwards_reads_every_frame_once_in_small_blocks(moving, monkeypatch):
    masks, scan = moving
    monkeypatch.setattr(module, "BLOCK_BYTES", 3 * 3 * HEIGHT * WIDTH + 5)
    reads = []
    read = scan.read
    monkeypatch.setattr(scan, "read", lambda frame=0: reads.append(frame) or read(frame))
    results = list(propagate(StubModel(), scan, 8, [box_of(masks[8])], direction="backward"))
    assert [result.frame for result in results] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert reads == [8, 5, 6, 7, 2, 3, 4, 0, 1]


def test_masks_stay_in_the_field_of_view_of_the_prompted_frame(moving, monkeypatch):
    masks, scan = moving
    field = np.zeros((HEIGHT, WIDTH), bool)
    field[:, 30:50] = True
    monkeypatch.setattr(StubSession, "__init__", with_field(StubSession.__init__, field))
    results = list(propagate(StubModel(), scan, 5, [box_of(masks[5])]))
    for result in results[1:]:
        if result.rles[0] is not None:
            found = decode_mask(result.rles[0])
            assert found.any() and not found[:, 50:].any() and not found[:, :30].any()


def with_field(original, field):
    def init(self, model, image, clip):
        original(self, model, image, clip)
        self.field = field if clip else None

    return init


def test_box_with_margin_stays_in_the_image():
    mask = np.zeros((50, 80), bool)
    mask[10:30, 20:60] = True
    assert box_with_margin(mask, 0.1).tolist() == [16, 8, 64, 32]
    assert box_with_margin(mask, 0.0).tolist() == [18, 8, 62, 32]
    assert box_with_margin(mask, 5.0).tolist() == [0, 0, 80, 50]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(prompts=[]), PromptError, "at least one object"),
        (dict(direction="up"), ConfigError, "both, forward, backward, found 'up'"),
        (dict(margin=-0.1), ConfigError, "margin must be at least 0, found -0.1"),
        (dict(frame=14), DataError, "frames 0 to 13, found 14"),
        (dict(prompts=[Prompt(box=np.array([70, 0, 90, 10], np.float32))]), PromptError, "object 1 in frame 5"),
    ],
)
def test_what_cannot_be_followed_is_refused(moving, change, error, words):
    masks, scan = moving
    arguments = {"frame": 5, "prompts": [box_of(masks[5])], **change}
    with pytest.raises(error, match=words):
        list(propagate(StubModel(), scan, **arguments))


def test_a_rule_out_of_range_is_refused():
    for wrong in (dict(min_iou=1.2), dict(max_iou_drop=-0.1), dict(max_area_change=0.5), dict(min_overlap=-0.1)):
        with pytest.raises(ConfigError, match="an object is lost by"):
            LossRule(**wrong)


def test_all_files_hold_the_same_masks(moving, tmp_path):
    masks, scan = moving
    scan.rate = 10.0
    vanishing = [mask if t < 11 else np.zeros_like(mask) for t, mask in enumerate(masks)]
    scan = scan_from_array(loop(vanishing), spacing=(0.5, 0.25), name="moving.npy")
    scan.rate = 10.0
    files = write_propagation(propagate(StubModel(), scan, 3, [box_of(masks[3])]), scan, tmp_path / "out")
    assert [path.name for path in files] == [
        "moving_masks.json", "moving_overlay.mp4", "moving_labels.nii.gz", "moving_area.csv", "moving_area.png",
        "moving_area.svg",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in files)

    document = json.loads(files[0].read_text())
    assert len(document["annotations"]) == 11
    frames = {image["id"]: image["frame"] for image in document["images"]}
    for annotation in document["annotations"]:
        found = coco_mask.decode(annotation["segmentation"]).astype(bool)
        assert np.array_equal(found, vanishing[frames[annotation["image_id"]]])

    with av.open(str(files[1])) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
    assert len(pictures) == 14 and pictures[0].shape[0] % 2 == 0 and pictures[0].shape[1] % 2 == 0

    volume = open_scan(files[2])
    for frame in range(14):
        assert np.array_equal(volume.read(frame)[..., 0] > 0, vanishing[frame])

    rows = list(csv.DictReader(files[3].read_text().splitlines()))
    assert [int(row["frame"]) for row in rows] == list(range(12))
    for row in rows[:11]:
        area = vanishing[int(row["frame"])].sum()
        assert int(row["area_px"]) == area
        assert float(row["area_mm2"]) == pytest.approx(area * 0.125, abs=1e-3)
        assert float(row["time_s"]) == pytest.approx(int(row["frame"]) / 10)
    assert (rows[11]["lost"], rows[11]["area_px"], rows[11]["score"]) == ("nothing was found", "", "")
    assert files[4].read_bytes()[:4] == b"\x89PNG" and b"<svg" in files[5].read_bytes()


def test_parts_are_chosen_by_name(moving, tmp_path):
    masks, scan = moving
    results = list(propagate(StubModel(), scan, 3, [box_of(masks[3])]))
    (path,) = write_propagation(results, scan, tmp_path, stem="liver", parts=["masks"])
    assert path.name == "liver_masks.json"
    with pytest.raises(ConfigError, match=f"{', '.join(PARTS)}, found 'gif'"):
        write_propagation(results, scan, tmp_path, parts=["gif"])
    with pytest.raises(ConfigError, match="no result"):
        write_propagation([], scan, tmp_path)


def test_a_network_follows_through_a_video(tmp_path):
    """The pieces fit together with a real network and a real video; its random masks mean nothing."""
    masks = [disc(30 + t, 30, 12, 64, 96) for t in range(6)]
    path = tmp_path / "cine.mp4"
    write_video_file(path, loop(masks))
    torch.manual_seed(0)
    sam = build_sam("vit_tiny", 64).eval().requires_grad_(False)
    model = UltraSam(SimpleNamespace(sam=sam, passes=(), mask_prompt=True, card={}))
    rule = LossRule(0, 1, 1e9, 0)
    prompts = [Prompt.of(points=[30, 30]), Prompt.of(box=[10, 10, 60, 50])]
    with open_scan(path) as scan:
        results = list(propagate(model, scan, 2, prompts, rule=LossRule(0, 1, 1e9, 0)))
        assert results[0].frame == 2
        assert all(len(result.rles) == 2 for result in results)
        first = model.session(scan.read(2)).predict(prompts=prompts)
        assert np.array_equal(results[0].masks(64, 96), first.masks)
        following = model.session(scan.read(3), clip=False).predict(
            prompts=[
                Prompt(box=box_with_margin(mask, 0.1), logits=row)
                for mask, row in zip(first.masks, first.logits, strict=True)
            ]
        )
        reasons = [
            rule.reason(a, b, float(s), float(s))
            for a, b, s in zip(following.masks, first.masks, following.scores, strict=True)
        ]
        assert results[1].frame == 3
        for row, reason in enumerate(reasons):
            assert (results[1].rles[row] is None) == bool(reason)
            if not reason:
                assert np.array_equal(decode_mask(results[1].rles[row]), following.masks[row])


def write_video_file(path, frames, rate=20):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.repeat(frame[..., None], 3, axis=2), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


LONG = """
import sys
from pathlib import Path
from types import SimpleNamespace
from ultrasam.inference.model import UltraSam
from ultrasam.inference.prompt import Prompt
from ultrasam.inference.propagate import propagate
from ultrasam.inference.propagate_write import write_propagation
from ultrasam.io.scan import open_scan
from ultrasam.modeling.build import build_sam

def memory(field):
    # In megabytes. The peak that getrusage gives may be that of the process which started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1000 for line in lines if line.startswith(field))

class Bright(UltraSam):
    def session(self, *args, **kwargs):
        session = super().session(*args, **kwargs)
        predict = session.predict
        def bright(prompts):
            answer = predict(prompts=prompts)
            answer.masks[:] = session.image[..., 0] > 128
            answer.scores[:] = 1
            return answer
        session.predict = bright
        return session

sam = build_sam("vit_tiny", 256).eval().requires_grad_(False)
model = Bright(SimpleNamespace(sam=sam, passes=(), mask_prompt=True, card={}))
with open_scan(sys.argv[1]) as scan:
    model.encode([scan.read(0)])
    before = memory("VmRSS")
    results = list(propagate(model, scan, 150, [Prompt.of(box=[100, 100, 400, 400])]))
    write_propagation(results, scan, sys.argv[2])
print(memory("VmHWM") - before, sum(result.rles[0] is not None for result in results))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's record of the peak memory")
def test_a_long_cine_takes_less_than_a_gigabyte(tmp_path):
    """300 frames of 576 x 768, which are 0.4 GB of pixels and 0.13 GB of labels, followed and all files written."""
    import subprocess
    import sys

    masks = np.stack([disc(300 + 40 * np.sin(t / 20), 280, 90, 576, 768) for t in range(300)])
    write_video_file(tmp_path / "long.mp4", loop(masks))
    done = subprocess.run(
        [sys.executable, "-c", LONG, str(tmp_path / "long.mp4"), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    megabytes, followed = (int(value) for value in done.stdout.split())
    assert followed == 300
    # Less than a tenth would mean that it is not measured.
    assert 50 < megabytes < 1000
    assert len(list((tmp_path / "out").iterdir())) == 6
