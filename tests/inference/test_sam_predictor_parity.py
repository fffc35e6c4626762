"""One script, run with ``segment_anything.SamPredictor`` and with ours on equal weights."""

import numpy as np
import pytest
import segment_anything
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling import Sam as TheirSam
from tiny_models import SIZE, TinyNetwork, noise, random_sam

from ultrasam.errors import CheckpointError, PromptError
from ultrasam.inference.model import UltraSam
from ultrasam.inference.sam_predictor import SamPredictor, sam_model_registry

CELLS = SIZE // 16


@pytest.fixture(scope="module")
def predictors():
    """Theirs and ours, of the size of vit_tiny, float32."""
    ours = random_sam()
    theirs = TheirSam(
        ImageEncoderViT(
            img_size=SIZE, patch_size=16, embed_dim=96, depth=4, num_heads=3, out_chans=256, use_rel_pos=True,
            window_size=8, global_attn_indexes=(1, 3), qkv_bias=True,
            norm_layer=lambda d: torch.nn.LayerNorm(d, eps=1e-6),
        ),
        PromptEncoder(
            embed_dim=256, image_embedding_size=(CELLS, CELLS), input_image_size=(SIZE, SIZE), mask_in_chans=16
        ),
        MaskDecoder(
            num_multimask_outputs=3, transformer_dim=256, iou_head_depth=3, iou_head_hidden_dim=256,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=512, num_heads=8),
        ),
        pixel_mean=[123.675, 116.28, 103.53], pixel_std=[58.395, 57.12, 57.375],
    ).eval()  # fmt: skip
    state = theirs.state_dict()
    theirs.load_state_dict({**state, **ours.state_dict()}, strict=True)
    return segment_anything.SamPredictor(theirs), SamPredictor(UltraSam(TinyNetwork(ours, ())))


def script(predictor, device="cpu"):
    """What scripts for SamPredictor do; yields everything that they get to see."""
    image = noise(90, 150)
    predictor.set_image(image)
    yield "embedding", predictor.get_image_embedding()
    yield "sizes", (tuple(predictor.original_size), tuple(predictor.input_size), predictor.is_image_set)
    coords, labels = np.array([[60, 40], [20, 70], [100.5, 30.25]]), np.array([1, 0, 1])
    box = np.array([20, 10, 110, 80])
    yield from named("point", predictor.predict(coords[:1], labels[:1]))
    masks, scores, low = predictor.predict(point_coords=coords, point_labels=labels, multimask_output=False)
    yield from named("points", (masks, scores, low))
    yield from named("box", predictor.predict(box=box, multimask_output=False))
    yield from named("box row", predictor.predict(box=box[None], multimask_output=False))
    yield from named("both", predictor.predict(coords, labels, box, multimask_output=True))
    yield from named("mask", predictor.predict(coords[:1], labels[:1], mask_input=low[:1]))
    yield from named("mask only", predictor.predict(mask_input=low[:1]))
    yield from named("nothing", predictor.predict())
    yield from named("logits", predictor.predict(coords, labels, box, low, False, return_logits=True))
    boxes = torch.tensor([[20.0, 10, 110, 80], [5, 5, 60, 60], [0, 0, 150, 90]], device=device)
    mapped = predictor.transform.apply_boxes_torch(boxes, image.shape[:2])
    yield "mapped boxes", mapped
    yield from named("batch of boxes", predictor.predict_torch(None, None, mapped, multimask_output=False))
    points = predictor.transform.apply_coords_torch(torch.tensor(coords[:, None]), image.shape[:2])
    signs = torch.tensor(labels[:, None])
    yield from named("batch of points", predictor.predict_torch(points, signs, None))
    yield from named("points and boxes", predictor.predict_torch(points, signs, mapped, return_logits=True))
    several = torch.cat([points, points.flip(0)], dim=1)
    padded = torch.tensor([[1, -1], [0, 1], [1, 0]])
    one_mask = torch.from_numpy(low)[None]
    yield from named("padded", predictor.predict_torch(several, padded, mask_input=one_mask))
    three = one_mask.expand(3, -1, -1, -1) * torch.tensor([1.0, -1, 0.5]).reshape(3, 1, 1, 1)
    yield from named("masks", predictor.predict_torch(None, None, mapped, three, multimask_output=True))
    predictor.set_image(image, image_format="BGR")
    yield from named("bgr", predictor.predict(coords, labels))
    resized = predictor.transform.apply_image(noise(200, 70, 5))
    tensor = torch.as_tensor(resized, device=device).permute(2, 0, 1).contiguous()[None]
    predictor.set_torch_image(tensor, (200, 70))
    yield "resized", resized
    yield from named("torch image", predictor.predict(np.array([[30, 100]]), np.array([1])))
    predictor.reset_image()
    yield "reset", (predictor.features is None, predictor.is_image_set)


def named(name, answer):
    return [(f"{name}: {part}", value) for part, value in zip(("masks", "scores", "low"), answer, strict=True)]


def test_one_script_gives_the_same_with_both(predictors):
    theirs, ours = predictors
    seen = 0
    for (name, expected), (same, found) in zip(script(theirs), script(ours), strict=True):
        assert name == same and type(found) is type(expected), name
        if isinstance(expected, tuple):
            assert found == expected, name
            continue
        assert found.shape == expected.shape and found.dtype == expected.dtype, name
        if "bool" in str(expected.dtype):
            expected, found = np.asarray(expected), np.asarray(found)
            assert (expected != found).mean() < 1e-4 and 0 < expected.mean() < 1, name
        elif "uint8" in str(expected.dtype):
            assert np.array_equal(found, expected), name
        else:
            np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-3, atol=2e-5, err_msg=name)
        seen += 1
    assert seen > 50


def test_transforms_equal_theirs(predictors):
    theirs, ours = (predictor.transform for predictor in predictors)
    for size in ((90, 150), (300, 77), (128, 128), (5, 1000)):
        assert ours._fit(size).resized_size == theirs.get_preprocess_shape(*size, theirs.target_length)
        xy = np.random.default_rng(0).uniform(0, 70, (3, 2, 2))
        assert np.allclose(ours.apply_coords(xy, size), theirs.apply_coords(xy, size))
        boxes = xy[:2].reshape(-1, 4)
        assert np.allclose(ours.apply_boxes(boxes, size), theirs.apply_boxes(boxes, size))


def test_kept_features_can_be_put_back(predictors):
    _, ours = predictors
    ours.set_image(noise())
    first, kept = ours.predict(box=np.array([10, 10, 60, 60])), ours.features
    ours.set_image(noise(seed=9))
    other = ours.predict(box=np.array([10, 10, 60, 60]))
    ours.features = kept
    again = ours.predict(box=np.array([10, 10, 60, 60]))
    assert np.array_equal(again[2], first[2]) and not np.array_equal(other[2], first[2])


def test_refused(predictors):
    _, ours = predictors
    ours.reset_image()
    with pytest.raises(RuntimeError, match="set_image"):
        ours.predict(box=np.array([1, 2, 3, 4]))
    with pytest.raises(RuntimeError, match="set_image"):
        ours.get_image_embedding()
    with pytest.raises(PromptError, match="'RGBA'"):
        ours.set_image(noise(), "RGBA")
    with pytest.raises(PromptError, match="long side of 128"):
        ours.set_torch_image(torch.zeros(1, 3, 50, 60), (50, 60))
    ours.set_image(noise())
    with pytest.raises(PromptError, match="need point_labels"):
        ours.predict(np.array([[3, 4]]))
    with pytest.raises(PromptError, match=r"\(1, 2\)"):
        ours.predict(np.array([[3, 4]]), np.array([1, 1]))
    with pytest.raises(PromptError, match="found 2"):
        ours.predict(np.array([[3, 4]]), np.array([2]))
    with pytest.raises(PromptError, match="no number"):
        ours.predict(np.array([[3, np.nan]]), np.array([1]))
    with pytest.raises(PromptError, match="as many objects"):
        ours.predict_torch(torch.zeros(2, 1, 2), torch.ones(2, 1), torch.ones(3, 4))
    with pytest.raises(PromptError, match=r"\(1, 1, 32, 32\)"):
        ours.predict(mask_input=np.zeros((1, 256, 256)))


def test_the_registry_loads_only_what_it_names(tmp_path):
    with pytest.raises(CheckpointError, match="vit_h network needs weights"):
        sam_model_registry["default"]()
    torch.save(random_sam().state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(CheckpointError, match="is vit_tiny, but vit_b was asked for"):
        sam_model_registry["vit_b"](checkpoint=tmp_path / "tiny.pth")
