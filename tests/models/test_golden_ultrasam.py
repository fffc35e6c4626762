"""The detector reproduces the released UltraSam's numbers, on weights that any machine can rebuild."""

import json
import runpy

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from ultrasam.engine.setup import register_all
from ultrasam.geometry.transform import SquareTransform
from ultrasam.models.joined_prompts import join_prompts

pytestmark = pytest.mark.shared

IMAGES = (0, 2, 7)


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "reference" / "golden_ultrasam.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def detector(shared, tmp_path_factory):
    """The released configuration with the stand-in weights, loaded as ``UltraSam.pth`` would be."""
    register_all()
    from ultrasam.models.detector import UltraSamDetector

    build = runpy.run_path(str(shared / "reference" / "make_weights.py"))["build"]
    path = tmp_path_factory.mktemp("weights") / "UltraSam.pth"
    state = build(str(shared / "reference" / "ultrasam_state_dict_keys.json"))
    torch.save({"state_dict": state, "meta": {}}, path)
    detector = UltraSamDetector(
        weights=str(path),
        refine_with_box=True,
        mask_order="released",
        loss={"iou_form": "mse"},
        freeze=["image_encoder"],
    )
    assert detector.sam.mlp_residual == "double"
    return detector.eval()


@pytest.fixture(scope="module")
def images(shared, golden):
    """Image number to (transform, resized RGB image); the released system truncates sizes, so they are its own."""
    folder = shared / "data" / "mmotu_2d_ultrasam_sample"
    record = json.loads(next(folder.glob("*.json")).read_text())
    by_id = {image["id"]: image["file_name"] for image in record["images"]}
    found = {}
    for number in IMAGES:
        path = next(folder.rglob(by_id[number].split("/")[-1]))
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        resized = tuple(int(side) for side in golden[f"box_refine_{number}/img_shape"])
        fit = SquareTransform(image.shape[:2], resized, 1024)
        found[number] = (fit, torch.from_numpy(fit.image(image)).permute(2, 0, 1))
    return found


@pytest.fixture(scope="module")
def embeddings(detector, images):
    """Full-precision embeddings; a frozen detector would round them to half."""
    with torch.no_grad():
        return {
            number: detector.sam.encode(detector.sam.preprocessing.batch([image]))
            for number, (_, image) in images.items()
        }


class Sample:
    """What the detector asks of a data sample."""

    def __init__(self, golden, key, fit):
        # Not from the file's prompt_types: refining wrote "box" over them before they were saved.
        kind = key.split("_")[0]
        # The file's coordinates hold the half pixel already.
        if kind == "box":
            coords = torch.tensor(golden[f"{key}/boxes"]).float().reshape(1, 2, 2) - 0.5
            labels = torch.tensor([[2, 3]])
        else:
            point = torch.tensor(golden[f"{key}/points"]).float().reshape(1, 1, 2) - 0.5
            coords = torch.cat([point, torch.zeros(1, 1, 2)], dim=1)
            labels = torch.tensor([[1, -1]])
        self.prompt_instances = InstanceData(coords=coords, labels=labels)
        self.transform = fit


@pytest.mark.parametrize("number", IMAGES)
@pytest.mark.parametrize("mode", ["refine", "single"])
@pytest.mark.parametrize("prompt", ["box", "point"])
def test_passes_scores_boxes_and_areas(detector, golden, images, embeddings, prompt, mode, number, monkeypatch):
    key = f"{prompt}_{mode}_{number}"
    fit = images[number][0]
    assert tuple(golden[f"{key}/ori_shape"]) == fit.original_size
    sample = Sample(golden, key, fit)
    monkeypatch.setattr(detector, "passes", ("single", "multi") if mode == "refine" else ("multi",))
    monkeypatch.setattr(detector, "extract_feat", lambda inputs: embeddings[number])
    with torch.no_grad():
        prompts = join_prompts([sample], torch.device("cpu"))
        outcomes = detector.run_passes(embeddings[number], prompts, [sample])
    for index, (logits, iou) in enumerate(outcomes):
        expected = torch.from_numpy(golden[f"{key}/pass{index}_mask_logits_stride4"])
        assert (logits[..., ::4, ::4] - expected).abs().max() < 1e-3
        assert (iou - torch.from_numpy(golden[f"{key}/pass{index}_iou"])).abs().max() < 1e-3
    assert f"{key}/pass{len(outcomes)}_iou" not in golden
    (result,) = detector.predict([images[number][1]], [sample])
    found = result.pred_instances
    assert abs(float(found.scores[0]) - float(golden[f"{key}/final_scores"][0])) < 1e-3
    np.testing.assert_allclose(found.bboxes.numpy(), golden[f"{key}/final_bboxes"], atol=1e-3)
    area = int(golden[f"{key}/final_mask_area"][0])
    assert abs(int(found.masks.sum()) - area) <= max(2, 1e-4 * area)


@pytest.mark.parametrize("mode", ["refine", "single"])
@pytest.mark.parametrize("prompt", ["box", "point"])
def test_losses(detector, golden, images, embeddings, prompt, mode, monkeypatch):
    samples = []
    for row, number in enumerate(IMAGES[:2]):
        sample = Sample(golden, f"{prompt}_single_{number}", images[number][0])
        sample.gt_instances = InstanceData(targets=torch.from_numpy(golden["loss_targets"][row : row + 1]))
        samples.append(sample)
    batch = torch.cat([embeddings[number] for number in IMAGES[:2]])
    monkeypatch.setattr(detector, "passes", ("single", "multi") if mode == "refine" else ("multi",))
    monkeypatch.setattr(detector, "extract_feat", lambda inputs: batch)
    with torch.no_grad():
        losses = detector.loss([image for _, image in images.values()][:2], samples)
    expected = {
        name.split("/")[1]: float(value)
        for name, value in golden.items()
        if name.startswith(f"{prompt}_{mode}_loss/")
    }
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert abs(float(value) - expected[name]) < 1e-3, name
