"""The hook as a test loop calls it: files, sheet and what it says in the log."""

import logging
from types import SimpleNamespace

import mmdet.registry
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import HOOKS
from mmengine.structures import InstanceData

from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.rle import encode_mask
from ultrasam.io.images import read_image, write_png
from ultrasam.visualization import drawing, hook
from ultrasam.visualization.hook import VisualizePromptsHook

SIZE = (60, 80)


def square(x, side=20):
    mask = np.zeros(SIZE, dtype=bool)
    mask[20 : 20 + side, x : x + side] = True
    return mask


def sample_of(path, truths, masks, image=1, dataset="busi"):
    if not path.exists():
        write_png(path, np.full((*SIZE, 3), 90, dtype=np.uint8))
    sample = DetDataSample(
        metainfo={
            "img_id": image, "img_path": str(path), "ori_shape": SIZE, "dataset": dataset, "group": "",
        }
    )  # fmt: skip
    count = len(truths)
    sample.gt_instances = InstanceData(rles=[encode_mask(t) for t in truths])
    sample.gt_instances.annotation_ids = list(range(count))
    stack = torch.from_numpy(np.array(masks).reshape(-1, *SIZE).astype(bool))
    sample.pred_instances = InstanceData(masks=stack, scores=torch.full((len(stack),), 0.8))
    points = [np.array([[30.0, 30.0]]), np.zeros((0, 2))][:count]
    sample.prompt_instances = InstanceData(
        points=points,
        point_labels=[np.ones(len(p), dtype=np.int64) for p in points],
        boxes=torch.tensor([[float("nan")] * 4, [40.0, 20.0, 60.0, 40.0]])[:count],
        kind=["point", "box"][:count],
    )
    return sample


@pytest.fixture
def runner():
    records = []
    logger = logging.getLogger("test_hook")
    logger.setLevel(logging.INFO)
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    yield SimpleNamespace(logger=logger, records=records)
    logger.removeHandler(handler)


def run(runner, batches, **settings):
    shown = VisualizePromptsHook(**settings)
    shown.before_test_epoch(runner)
    for i, batch in enumerate(batches):
        shown.after_test_iter(runner, i, None, batch)
    shown.after_test_epoch(runner, {})
    (record,) = runner.records
    return record.levelno, record.getMessage()


def pictures(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))


def test_configs_find_it_by_name_in_both_scopes():
    assert HOOKS.get("VisualizePromptsHook") is VisualizePromptsHook
    assert mmdet.registry.HOOKS.parent is HOOKS


def test_prompt_prediction_and_truth_are_drawn(tmp_path, runner):
    sample = sample_of(tmp_path / "a.png", [square(20), square(40)], [square(24), square(40, side=0)])
    out = tmp_path / "out"
    level, message = run(runner, [[sample]], out_dir=str(out))
    assert level == logging.INFO
    assert "Drew 1 predicted masks on 1 images" in message and "1 masks were empty" in message
    assert str(out) in message
    picture, sheet = pictures(out)
    assert sheet == "contact_sheet.png" and picture.startswith("busi/a-")
    drawn = read_image(out / picture)
    for colour in (drawing.PREDICTION, drawing.TRUTH, drawing.POSITIVE, drawing.BOX):
        assert (np.abs(drawn.astype(int) - np.array(colour)) <= 12).all(axis=2).any()


def test_images_of_one_name_do_not_collide(tmp_path, runner):
    samples = []
    for folder in ("one", "two"):
        path = tmp_path / folder / "benign (1).png"
        samples += [
            sample_of(path, [square(20)], [square(20)], dataset=d) for d in ("busi", "stu", "a/b", "a_b")
        ]
    out = tmp_path / "out"
    run(runner, [samples, samples[:2]], out_dir=str(out), sheet=False)
    names = pictures(out)
    assert len(names) == 8
    assert all(name.split("/")[1].startswith("benign_(1)-") for name in names)
    again = tmp_path / "again"
    runner.records.clear()
    run(runner, [samples], out_dir=str(again), sheet=False)
    assert pictures(again) == names


def test_max_images_counts_images(tmp_path, runner):
    samples = [sample_of(tmp_path / f"{i}.png", [square(20)], [square(20)], image=i) for i in range(6)]
    run(runner, [samples[:1], samples[1:]], out_dir=str(tmp_path / "out"), max_images=4, sheet=False)
    assert len(pictures(tmp_path / "out")) == 4


@pytest.mark.parametrize("limit", [1, 5, 8])
def test_processes_share_the_limit(limit, monkeypatch, tmp_path):
    monkeypatch.setattr(hook, "get_world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(hook, "get_rank", lambda rank=rank: rank)
        shares.append(VisualizePromptsHook(str(tmp_path), max_images=limit)._share())
    assert sum(shares) == limit and max(shares) - min(shares) <= 1


def test_only_the_main_process_writes_the_sheet_and_the_log(tmp_path, runner, monkeypatch):
    monkeypatch.setattr(hook, "is_main_process", lambda: False)
    shown = VisualizePromptsHook(str(tmp_path / "out"))
    shown.after_test_iter(runner, 0, None, [sample_of(tmp_path / "a.png", [square(20)], [square(20)])])
    shown.after_test_epoch(runner, {})
    assert not runner.records
    assert len(pictures(tmp_path / "out")) == 1


def test_images_given_to_two_processes_are_counted_once(tmp_path, runner, monkeypatch):
    monkeypatch.setattr(hook, "all_gather_object", lambda part: [part, part])
    sample = sample_of(tmp_path / "a.png", [square(20)], [square(20)])
    assert "Drew 1 predicted masks on 1 images" in run(runner, [[sample]], out_dir=str(tmp_path / "out"))[1]


def test_sheet_shows_the_extremes(tmp_path, runner, monkeypatch):
    seen = {}

    def sheet(panels, columns, captions):
        seen.update(columns=columns, captions=captions)
        return panels[0]

    monkeypatch.setattr(hook, "contact_sheet", sheet)
    order = np.random.default_rng(0).permutation(15)
    samples = [sample_of(tmp_path / f"{i:02}.png", [square(20)], [square(20 + i)]) for i in order]
    run(runner, [samples], out_dir=str(tmp_path / "out"))
    # Image 0 is predicted exactly, image 14 with the largest shift.
    assert seen["captions"] == [
        *(f"worst  busi / {i:02}" for i in (14, 13, 12, 11)),
        *(f"median  busi / {i:02}" for i in (9, 8, 7, 6)),
        *(f"best  busi / {i:02}" for i in (3, 2, 1, 0)),
    ]
    assert seen["columns"] == 4


@pytest.mark.parametrize(
    ("truths", "masks", "reason"),
    [
        ([square(0)], [square(0, side=0)], "empty or missing"),
        ([square(0)], [], "empty or missing"),
        ([], [], "no annotated"),
    ],
)
def test_no_mask_is_an_error_that_says_why(truths, masks, reason, tmp_path, runner):
    sample = sample_of(tmp_path / "a.png", truths, masks)
    level, message = run(runner, [[sample]], out_dir=str(tmp_path / "out"))
    assert level == logging.ERROR
    assert "Drew no predicted mask" in message and reason in message


def test_no_sample_is_an_error_that_says_why(tmp_path, runner):
    level, message = run(runner, [], out_dir=str(tmp_path / "out"))
    assert level == logging.ERROR and "no data samples" in message


def test_wrong_input(tmp_path, runner):
    with pytest.raises(ConfigError, match="max_images"):
        VisualizePromptsHook(str(tmp_path), max_images=0)
    sample = sample_of(tmp_path / "a.png", [square(0)], [square(0)])
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png"):
        VisualizePromptsHook(str(tmp_path)).after_test_iter(runner, 0, None, [sample])
