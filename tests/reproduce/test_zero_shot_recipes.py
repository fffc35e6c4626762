"""The zero-shot configurations: MedSAM's own recipe step by step, training without an application, expected weights."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose

from ultrasam.checkpoints.cards import card_named
from ultrasam.engine.config import CONFIG_ROOT, load_config
from ultrasam.engine.setup import register_all
from ultrasam.geometry.transform import SquareTransform
from ultrasam.io.images import write_png
from ultrasam.modeling.sam import Preprocessing

register_all()

FILES = {
    "zero_shot/sam_vit-b_us43d": "sam_vit_b_01ec64.pth",
    "zero_shot/medsam_vit-b_us43d": "medsam_vit_b.pth",
    "zero_shot/medsam_vit-b_us43d_common": "medsam_vit_b.pth",
    "ultrasam/ultrasam_vit-b_4xb8-30k_us43d": "UltraSam.pth",
    "ultrasam/ultrasam_vit-b_4xb8-30k_us43d_released": "UltraSam.pth",
    "ultrasam/ultrasam_vit-b_4xb8-30k_us43d_no-refine": "sam_vit_b_01ec64.pth",
    "ultrasam/ultrasam_vit-b_4xb8-30k_us43d_without-breast": "sam_vit_b_01ec64.pth",
    "ultrasam/ultrasam_vit-b_4xb8-30k_us43d_without-ovarian": "sam_vit_b_01ec64.pth",
    "ultrasam/ultrasam_vit-b_4xb8-30k_us43d_without-gastrointestinal": "sam_vit_b_01ec64.pth",
}


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_says_which_weights_it_expects(name):
    text = ast.get_docstring(ast.parse((CONFIG_ROOT / f"{name}.py").read_text(encoding="utf-8")))
    assert FILES[name] in text
    found = {path.relative_to(CONFIG_ROOT).with_suffix("").as_posix() for path in CONFIG_ROOT.glob("*/*vit-b*.py")}
    assert {each for each in found if each.startswith(("ultrasam/", "zero_shot/"))} == set(FILES)


def leaves(cfg):
    return cfg.test_dataloader.dataset.datasets


def test_medsam_is_prepared_as_its_authors_do(tmp_path):
    """Both sides to 1024, bicubic with antialiasing, then each image to 0 ... 1; output token 0; boxes."""
    transform = pytest.importorskip("skimage.transform")
    cfg = load_config("configs/zero_shot/medsam_vit-b_us43d.py")
    height, width = 120, 200
    y, x = np.mgrid[:height, :width]
    grey = 90 + 60 * np.sin(x / 9) * np.cos(y / 7) + np.random.default_rng(0).normal(0, 3, (height, width))
    image = np.repeat(grey.clip(5, 250).astype(np.uint8)[..., None], 3, axis=2)
    write_png(tmp_path / "image.png", image)
    pipeline = [step for step in leaves(cfg)[0].pipeline if step["type"] in ("LoadUltrasound", "FitSquare")]
    results = Compose([dict(step) for step in pipeline])(
        {"img_path": str(tmp_path / "image.png"), "height": height, "width": width, "objects": []}
    )
    theirs = transform.resize(image[..., 0], (1024, 1024), order=3, preserve_range=True, anti_aliasing=True)
    linear = SquareTransform.fit(height, width, 1024, "squash", "bilinear").image(image)[..., 0]
    ours, bilinear = (np.abs(pixels - theirs) for pixels in (results["img"][..., 0], linear))
    # Rounding is a quarter of a grey level; OpenCV's cubic kernel is not quite their spline.
    assert ours.mean() < 0.4 and ours.max() < 8 and 1.3 * ours.mean() < bilinear.mean()
    box = np.array([[20.0, 30.0, 60.0, 90.0]], np.float32)
    scale = np.array([1024 / width, 1024 / height] * 2)
    np.testing.assert_allclose(results["transform"].boxes(box), box * scale, rtol=1e-6)

    pixels = Preprocessing(**{"square": 1024, **cfg.model.preprocessing})
    square = torch.from_numpy(results["img"].transpose(2, 0, 1).copy())
    low, high = float(square.min()), float(square.max())
    expected = (square.float() - low) / max(high - low, 1e-8)
    torch.testing.assert_close(pixels.batch([square])[0], expected)
    card = card_named("medsam")["preprocessing"]
    assert {key: getattr(pixels, key) for key in ("mode", "interpolation", "scaling", "square")} == {
        key: card[key] for key in ("mode", "interpolation", "scaling", "square")
    }
    assert list(cfg.model.passes) == ["single"]
    assert [leaf.prompt for leaf in leaves(cfg)] == ["box"] * 3 and cfg.supported_prompts == ["box"]


def test_medsam_in_common_is_prepared_like_sam():
    sam, medsam = (load_config(f"configs/zero_shot/{name}_vit-b_us43d{end}.py")
                   for name, end in (("sam", ""), ("medsam", "_common")))  # fmt: skip
    assert "preprocessing" not in medsam.model and list(medsam.model.passes) == ["single"]
    assert [leaf.pipeline for leaf in leaves(sam)] == [leaf.pipeline for leaf in leaves(medsam)]
    assert medsam.supported_prompts == ["box"] and {leaf.prompt for leaf in leaves(medsam)} == {"box"}
    assert "supported_prompts" not in sam


@pytest.mark.parametrize(
    ("family", "slug"), [("breast", "bus_bra"), ("ovarian", "mmotu_2d"), ("gastrointestinal", "gist514_db")]
)
def test_training_without_an_application(family, slug):
    whole = load_config("configs/ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py")
    cfg = load_config(f"configs/ultrasam/ultrasam_vit-b_4xb8-30k_us43d_without-{family}.py")
    for split in ("train", "val"):
        loader, same = cfg[f"{split}_dataloader"], whole[f"{split}_dataloader"]
        assert loader.dataset.ann_file == f"{split}.without_{family}.json"
        loader.dataset.ann_file = same.dataset.ann_file
        assert loader == same, "only the list of images differs"
    assert [Path(leaf.ann_file).name for leaf in leaves(cfg)] == [f"test.{slug}.agnostic.json"]
    assert leaves(cfg)[0] in leaves(whole)
    assert (cfg.model, cfg.optim_wrapper, cfg.param_scheduler) == (
        whole.model, whole.optim_wrapper, whole.param_scheduler,
    )  # fmt: skip
