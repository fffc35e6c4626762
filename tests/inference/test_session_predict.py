"""Answers of a session: the passes of the detector, several objects, masks as prompts, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import noise, random_sam, tiny_model

from ultrasam.errors import ConfigError, DataError, PromptError
from ultrasam.inference.model import UltraSam
from ultrasam.inference.prompt import Prompt
from ultrasam.modeling.prompt_encoder import Prompts

BOX, POINT = [20, 10, 90, 70], [[40, 50]]


@pytest.fixture(scope="module")
def session():
    return tiny_model().session(noise(), spacing=(0.5, 0.25), name="folder/scan.png")


def reference(model, session, kinds, points=None, labels=None, box=None, masks=None):
    """The passes written out with the network's own decoding."""
    scale = session.transform.scale
    xy = None if points is None else torch.tensor(points, dtype=torch.float32) * torch.tensor(scale)
    corners = None if box is None else torch.tensor(box, dtype=torch.float32) * torch.tensor(scale * 2)
    signs = None if points is None else torch.tensor(labels or [1] * len(points))
    answer = masks
    for kind in kinds:
        prompts = Prompts.build([xy], [signs], [corners], torch.zeros(1, dtype=torch.long), answer)
        with torch.no_grad():
            logits, iou = model.sam.decode(session.embedding.features, prompts, kind == "multi")
        best = iou.argmax(dim=1)
        answer = logits[:, best]
    return answer[:, 0], iou.amax()


@pytest.mark.parametrize("passes", [("single",), ("multi",), ("single", "multi")])
@pytest.mark.parametrize(
    "prompt", [dict(points=POINT), dict(box=BOX), dict(points=[[40, 50], [9, 9]], labels=[1, 0], box=BOX)]
)
def test_runs_the_passes_of_the_weights(passes, prompt):
    model = tiny_model(passes)
    session = model.session(noise())
    found = session.predict(**prompt)
    logits, score = reference(model, session, passes, **prompt)
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-5)
    assert found.scores == pytest.approx([score.item()], rel=1e-4)
    assert np.array_equal(found.masks, (session.transform.logits_back(found.logits) > 0).numpy())


def test_plain_sam_weights_follow_sams_convention():
    model = tiny_model(())
    session = model.session(noise())
    logits = session.predict(points=POINT).logits[0]
    cases = {
        "multi": [dict(points=POINT)],
        "single": [
            dict(box=BOX), dict(points=[[40, 50], [60, 60]]), dict(points=POINT, box=BOX),
            dict(points=POINT, previous=session.predict(points=POINT)),
        ],
    }  # fmt: skip
    for kind, prompts in cases.items():
        for prompt in prompts:
            given = {key: value for key, value in prompt.items() if key != "previous"}
            masks = logits[None, None] if "previous" in prompt else None
            expected, _ = reference(model, session, [kind], masks=masks, **given)
            torch.testing.assert_close(session.predict(**prompt).logits, expected, rtol=1e-4, atol=1e-5)
    # The same objects in one call.
    mixed = [Prompt.of(box=BOX), Prompt.of(POINT), Prompt.of(POINT, logits=logits), Prompt.of([[40, 50], [60, 60]])]
    together = session.predict(prompts=mixed)
    for number, prompt in enumerate(mixed):
        torch.testing.assert_close(
            session.predict(prompts=[prompt]).logits[0], together.logits[number], rtol=1e-4, atol=1e-5
        )


def test_objects_of_all_kinds_in_one_call_equal_one_at_a_time(session):
    logits = session.predict(box=BOX).logits[0]
    prompts = [
        Prompt.of(POINT), Prompt.of(box=BOX), Prompt.of([[40, 50], [9, 9], [100, 80]], [1, 0, 1], BOX),
        Prompt.of(POINT, logits=logits), Prompt.of(logits=logits), Prompt.of([[1, 2]], [0], logits=logits),
    ]  # fmt: skip
    together = session.predict(prompts=prompts)
    assert together.masks.shape == (6, 90, 120) and together.masks.dtype == bool and len(together) == 6
    for number, prompt in enumerate(prompts):
        alone = session.predict(prompts=[prompt])
        torch.testing.assert_close(alone.logits[0], together.logits[number], rtol=1e-4, atol=1e-5)
        assert alone.scores[0] == pytest.approx(together.scores[number], rel=1e-4)
        assert (alone.masks[0] != together.masks[number]).mean() < 1e-3


def test_boxes_are_objects(session):
    boxes = [BOX, [1, 2, 30, 40]]
    found, alone = session.predict(boxes=boxes), [session.predict(box=box) for box in boxes]
    torch.testing.assert_close(found.logits, torch.cat([one.logits for one in alone]), rtol=1e-4, atol=1e-5)
    assert len(session.predict(prompts=[])) == 0


def test_boxes_around_the_masks(session):
    found = session.predict(prompts=[Prompt.of(POINT), Prompt.of(box=BOX)])
    for mask, box in zip(found.masks, found.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("size", [(90, 120), (128, 128), (700, 300), (31, 57)])
@pytest.mark.parametrize("arguments", [dict(), dict(mode="squash"), dict(arch="tiny_vit", size=64)])
def test_masks_equal_enlarging_everything(size, arguments):
    session = tiny_model(**arguments).session(noise(*size), clip=False)
    side = session.model.sam.low_res_size
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    # Small, off the corner, of many parts, everywhere, nowhere.
    fields = [
        9.5 - (x - 0.4 * side) ** 2 - (y - 0.3 * side) ** 2, 3.5 - x - y, torch.sin(1.7 * x) + torch.cos(0.9 * y * x),
        torch.ones(side, side), -torch.ones(side, side),
    ]  # fmt: skip
    logits = torch.stack([field.float() for field in fields])
    whole = session.transform.logits_back(logits)
    masks = session.masks_of(logits, np.zeros(5, np.float32)).masks
    sure = (whole.abs() > 1e-4).numpy()
    assert np.array_equal(masks & sure, (whole > 0).numpy() & sure) and sure.mean() > 0.99
    assert masks[3].all() and not masks[4].any() and 0 < masks[0].sum() < masks[0].size / 2


def test_mask_prompt_is_where_the_mask_is(session):
    mask = np.zeros((90, 120), bool)
    mask[20:61, 31:80] = True
    logits = session.logits_of_mask(mask)
    back = (session.transform.logits_back(logits[None]) > 0).numpy()[0]
    assert (back & mask).sum() / (back | mask).sum() > 0.9
    assert logits.min() == pytest.approx(-6.9) and logits.max() == pytest.approx(6.9)
    found = session.predict(mask=mask, points=POINT)
    by_hand = session.predict(prompts=[Prompt.of(POINT, logits=logits)])
    assert torch.equal(found.logits, by_hand.logits)
    assert not torch.equal(found.logits, session.predict(points=POINT).logits)
    for same in (mask.astype(np.uint8), mask * np.uint8(255)):
        assert torch.equal(session.logits_of_mask(same), logits)
    two = session.predict(boxes=[BOX, BOX], mask=[mask, ~mask])
    assert torch.equal(two.logits[0], session.predict(box=BOX, mask=mask).logits[0]) or torch.allclose(
        two.logits[0], session.predict(box=BOX, mask=mask).logits[0], rtol=1e-4, atol=1e-5
    )


def test_previous_answers_are_corrected(session):
    first = session.predict(boxes=[BOX, [1, 2, 30, 40]])
    prompts = [Prompt.of([[40, 50]]), Prompt.of([[10, 10]], [0])]
    found = session.predict(prompts=prompts, previous=first)
    by_hand = [Prompt.of(p.points, p.labels, logits=row) for p, row in zip(prompts, first.logits, strict=True)]
    assert torch.equal(found.logits, session.predict(prompts=by_hand).logits)
    one = session.predict(points=POINT, previous=first[1])
    assert torch.equal(one.logits, session.predict(prompts=[Prompt.of(POINT, logits=first.logits[1])]).logits)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(), "empty"),
        (dict(box=[20, 10, 130, 70]), "120 x 90"),
        (dict(boxes=[BOX, [50, 5, 20, 60]]), "50, 5, 20, 60 is reversed"),
        (dict(boxes=BOX), r"\(4,\)"),
        (dict(boxes=[BOX], points=POINT), "prompts="),
        (dict(prompts=[Prompt.of(POINT)], box=BOX), "stands alone"),
        (dict(mask=np.ones((90, 121), bool)), r"\(90, 121\).*\(90, 120\)"),
        (dict(mask=np.zeros((90, 120), bool), box=BOX), "mask prompt is empty"),
        (dict(mask=np.arange(90 * 120).reshape(90, 120) % 3), "0 and 1"),
        (dict(boxes=[BOX, BOX], mask=np.ones((90, 120), bool)), "2 boxes need 2 masks"),
        (dict(prompts=[Prompt.of(POINT, logits=torch.zeros(9, 9))]), r"32 x 32, found \(9, 9\)"),
    ],
)
def test_refused(session, arguments, says):
    with pytest.raises(PromptError, match=says):
        session.predict(**arguments)


def test_previous_that_does_not_fit_is_refused(session):
    first = session.predict(boxes=[BOX, BOX])
    with pytest.raises(PromptError, match=r"2 masks, but there are 1 objects"):
        session.predict(points=POINT, previous=first)
    with pytest.raises(PromptError, match="exclude each other"):
        session.predict(prompts=[Prompt.of(POINT, logits=first.logits[0])], previous=first[0])


def test_masks_as_a_sequence_and_in_files(session, tmp_path):
    found = session.predict(prompts=[Prompt.of([[40, 50], [3, 4]], [1, 0]), Prompt.of(box=BOX)])
    assert [len(one) for one in found] == [1, 1] and len(found[[1, 0]]) == 2 and len(found[1:]) == 1
    assert np.array_equal(found[-1].masks[0], found.masks[1]) and found[1].prompts[0].box.tolist() == BOX
    with pytest.raises(IndexError):
        found[2]
    assert [one.area_px for one in found.measures()] == found.masks.sum(axis=(1, 2)).tolist()
    paths = found.save(tmp_path / "out")
    assert [path.name for path in paths] == ["scan_labels.png", "scan_overlay.png", "scan.json"]
    labels = np.array(Image.open(paths[0]))
    assert np.array_equal(labels > 0, found.masks.any(axis=0))
    width, height = Image.open(paths[1]).size
    assert width * 90 == height * 120
    document = json.loads(paths[2].read_text())
    assert document["annotations"][0]["prompt"] == {"points": [[40, 50], [3, 4]], "labels": [1, 0]}
    assert document["annotations"][0]["measures"]["area_mm2"] == pytest.approx(found.masks[0].sum() * 0.125)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a/b/cine.nii.gz", "cine"), ("1.2.840.113", "1.2.840.113"), ("x.dcm", "x"), ("", "image"), ("../..", "image")],
)
def test_names_of_results(session, name, stem):
    found = session.predict(points=POINT)
    found.name = name
    assert found.stem in (stem, "..") and "/" not in found.stem


def test_images_that_are_none():
    model = tiny_model()
    for image in (np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(DataError, match="uint8 RGB"):
            model.session(image)
    grey = noise()[..., 0]
    assert model.session(grey).image.shape == (90, 120, 3)
    with pytest.raises(DataError, match="encode this image"):
        model.session(noise(50, 50), model.encode([noise()])[0])


def test_devices():
    with pytest.raises(ConfigError, match="cuda:77"):
        tiny_model().to("cuda:77")
    with pytest.raises(ConfigError, match="no device 'gpu'"):
        UltraSam.from_checkpoint("unused.pth", device="gpu")
    assert tiny_model().to("cpu").device.type == "cpu"


def test_importing_is_lazy():
    import subprocess
    import sys

    code = (
        "import sys, ultrasam, ultrasam.inference; assert 'torch' not in sys.modules\n"
        "from ultrasam import UltraSam; from ultrasam.inference import UltraSam as Same; assert UltraSam is Same\n"
        "assert 'transformers' not in sys.modules and 'mmengine' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError):
        import ultrasam

        _ = ultrasam.Nothing


def test_every_mode_of_preprocessing_is_the_encoders():
    sam = random_sam(mode="squash", scaling="min_max")
    model = tiny_model(mode="squash", scaling="min_max")
    image = noise(50, 100)
    embedding = model.encode([image])[0]
    assert embedding.transform.resized_size == (128, 128)
    resized = torch.from_numpy(embedding.transform.image(image)).permute(2, 0, 1)
    with torch.no_grad():
        expected = sam.encode(sam.preprocessing.batch([resized]))
    assert torch.equal(embedding.features, expected)
