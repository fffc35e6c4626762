"""The last stages of an encoder train while the ones before stay frozen, with and without a cache."""

import pytest
import torch
from mini_batches import batch_of, small_detector

from ultrasam.errors import ConfigError
from ultrasam.modeling.build import build_sam

FROZEN = {"freeze": ["image_encoder"]}


def steps(detector, count=3):
    """Train some steps on two batches; return the losses."""
    parameters = [p for p in detector.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 1e-2)
    detector.train()
    found = []
    for number in range(count):
        optimizer.zero_grad()
        losses = detector(**detector.data_preprocessor(batch_of(2, 1, first_seed=2 * (number % 2)), True), mode="loss")
        sum(losses.values()).backward()
        optimizer.step()
        found.append({name: value.item() for name, value in losses.items()})
    return found


@pytest.mark.parametrize(("arch", "side"), [("vit_tiny", 64), ("tiny_vit", 64)])
def test_running_in_two_parts_is_running_at_once(arch, side):
    torch.manual_seed(0)
    encoder = build_sam(arch, side).image_encoder.eval()
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        whole = encoder(images)
        for cut in range(len(encoder.stages()) + 1):
            torch.testing.assert_close(encoder.run(encoder.run(images, 0, cut), cut), whole)


def test_only_the_last_stages_change():
    detector = small_detector(**FROZEN, trained_stages=2)
    before = {name: value.clone() for name, value in detector.sam.image_encoder.state_dict().items()}
    steps(detector)
    after = detector.sam.image_encoder.state_dict()
    changed = {
        name.split(".")[0] + "." + name.split(".")[1] for name in after if not torch.equal(before[name], after[name])
    }
    last = len(detector.sam.image_encoder.blocks) - 1
    assert changed == {f"blocks.{last}"} | {name for name in changed if name.startswith("neck")}
    assert any(name.startswith("neck") for name in changed)
    assert all(p.grad is None for p in detector.sam.image_encoder.patch_embed.parameters())


def test_a_cache_changes_nothing_and_outlives_the_training(tmp_path):
    plain = steps(small_detector(**FROZEN, trained_stages=1))
    detector = small_detector(**FROZEN, trained_stages=1, cache_dir=str(tmp_path))
    assert steps(detector) == plain
    files = len(list(tmp_path.iterdir()))
    # The trained neck is not part of the key: another detector with the same frozen stages finds every file.
    other = small_detector(**FROZEN, trained_stages=1, cache_dir=str(tmp_path))
    other.load_state_dict(detector.state_dict())
    steps(other)
    assert other.cache.misses == 0
    assert len(list(tmp_path.iterdir())) == files
    # What another number of stages keeps is something else.
    third = small_detector(**FROZEN, trained_stages=2, cache_dir=str(tmp_path))
    steps(third, 1)
    assert third.cache.hits == 0


@pytest.mark.parametrize("arguments", [
    {"trained_stages": 1}, {**FROZEN, "trained_stages": 99}, {**FROZEN, "trained_stages": -1},
])  # fmt: skip
def test_impossible_numbers_are_refused(arguments):
    with pytest.raises(ConfigError, match="trained_stages"):
        small_detector(**arguments)
