"""One word decides what trains: gradients, optimizer, graph, counts, cards, and the files that are left."""

import pytest
import torch
from mini_batches import SIZE, FitSquare, batch_of, packed, small_detector

from ultrasam.adapters.attach import adapter_names
from ultrasam.adapters.files import apply_adapter
from ultrasam.checkpoints import read_weights, save_checkpoint
from ultrasam.errors import CheckpointError, ConfigError
from ultrasam.models.adapter_hook import write_weights
from ultrasam.models.trainable import METHODS, trainable_counts, trainable_text

OPTIONS = {"lora": {"rank": 4}, "med_sa": {"ratio": 0.25}, "samus": {"image_size": SIZE, "cnn_widths": [2, 4, 6]}}


def detector_of(method, **more):
    passes = {"passes": ["single"]} if method == "samus" else {}
    return small_detector(method=method, adapter=OPTIONS.get(method), **{**passes, **more})


def batch_for(method):
    if method != "samus":
        return batch_of(2, 1)
    fit = FitSquare(SIZE, "squash", "bilinear", target_size=SIZE // 2)
    items = [packed(seed, 2, "point", fit=fit) for seed in range(2)]
    return {key: [item[key] for item in items] for key in ("inputs", "data_samples")}


def step(detector, method):
    detector.train()
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-2, weight_decay=0.1)
    losses = detector(**detector.data_preprocessor(batch_for(method), True), mode="loss")
    sum(losses.values()).backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("method", METHODS)
def test_frozen_numbers_stay_and_have_no_state(method):
    detector = detector_of(method)
    before = {name: value.clone() for name, value in detector.sam.state_dict().items()}
    optimizer = step(detector, method)
    trained = [p for p in detector.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None for p in trained)
    assert all(p.grad is None for p in detector.parameters() if not p.requires_grad)
    assert set(optimizer.state) == set(trained)
    changed = {name for name, value in detector.sam.state_dict().items() if not torch.equal(value, before[name])}
    if method == "full":
        assert {name.split(".")[0] for name in changed} == {"image_encoder", "prompt_encoder", "mask_decoder"}
    elif method == "decoder":
        assert {name.split(".")[0] for name in changed} == {"prompt_encoder", "mask_decoder"}
    else:
        assert changed and changed <= set(adapter_names(detector.sam))
    card = detector.card()
    assert card["method"] == method and card["trainable"]["trained"] == sum(p.numel() for p in trained)
    assert card["trainable"]["all"] == sum(p.numel() for p in detector.sam.parameters())
    assert f"Trains ({method}): {card['trainable']['trained']:,} of" in trainable_text(detector.sam, method)
    assert detector.test_step(batch_for(method))


@pytest.mark.parametrize(("method", "has_graph"), [("decoder", False), ("lora", True), ("full", True)])
def test_a_frozen_encoder_keeps_no_graph(method, has_graph):
    detector = detector_of(method).train()
    features = detector.extract_feat(detector.data_preprocessor(batch_of(1), True)["inputs"])
    assert features.requires_grad == has_graph


def test_nothing_is_kept_before_the_first_trained_layer():
    """Of a LoRA network the patch embedding and the first normalisation have no graph."""
    detector = detector_of("lora").train()
    seen = {}
    encoder = detector.sam.image_encoder
    encoder.patch_embed.register_forward_hook(lambda m, i, o: seen.update(patches=o.requires_grad))
    encoder.blocks[0].norm1.register_forward_hook(lambda m, i, o: seen.update(norm=o.requires_grad))
    encoder.blocks[0].register_forward_hook(lambda m, i, o: seen.update(block=o.requires_grad))
    detector.extract_feat(detector.data_preprocessor(batch_of(1), True)["inputs"])
    assert seen == {"patches": False, "norm": False, "block": True}


def test_parts_train_beside_an_adapter():
    detector = small_detector(method="lora", adapter={"rank": 2, "also_train": ["mask_decoder"]})
    counts = trainable_counts(detector.sam)
    assert counts["mask_decoder"] > 1e6 and counts["prompt_encoder"] == 0 < counts["image_encoder"]
    assert set(detector.frozen) == {"image_encoder", "prompt_encoder"}
    assert detector.sam.mask_decoder.training and not detector.sam.prompt_encoder.training
    # Outputs that a single pass never uses would wait for gradients in a distributed run.
    alone = small_detector(method="lora", adapter={"rank": 2, "also_train": ["mask_decoder"]}, passes=["single"])
    mlps = alone.sam.mask_decoder.output_hypernetworks_mlps
    assert [all(p.requires_grad for p in mlp.parameters()) for mlp in mlps] == [True, False, False, False]


def test_dropout_of_lora_is_on_while_the_rest_is_in_evaluation():
    detector = small_detector(method="lora", adapter={"rank": 2}).train()
    modes = {type(m).__name__: m.training for m in detector.sam.image_encoder.modules()}
    assert modes["Dropout"] and not modes["ImageEncoder"] and not modes["LayerNorm"]
    detector.eval()
    assert not any(m.training for m in detector.modules())


@pytest.mark.parametrize(("arguments", "message"), [
    ({"method": "prefix"}, "method is 'prefix', expected one of full, decoder, lora, med_sa, samus"),
    ({"adapter": {"rank": 2}}, "adapter has options but method is None"),
    ({"method": "full", "adapter": {"rank": 2}}, "method='full' has no adapter"),
    ({"method": "lora", "freeze": ["image_encoder"]}, "decides what trains and freeze"),
    ({"method": "lora", "adapter": {"ranks": 2}}, "has no option 'ranks'"),
    ({"method": "lora", "trained_stages": 1}, "trained_stages counts"),
])  # fmt: skip
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        small_detector(**arguments)


def test_the_decoder_alone_may_use_the_cache(tmp_path):
    detector = detector_of("decoder", cache_dir=str(tmp_path))
    step(detector, "decoder")
    assert len(list(tmp_path.glob("*.npy"))) == 2


@pytest.mark.parametrize("method", ["lora", "med_sa", "samus"])
def test_the_file_that_is_left_belongs_to_the_base(tmp_path, method):
    base = tmp_path / "base.safetensors"
    save_checkpoint(base, small_detector().sam.state_dict(), {"architecture": "vit_tiny"})
    detector = detector_of(method, weights=str(base), seed=3)
    step(detector, method)
    path = write_weights(detector.eval(), tmp_path, {"licence": "mine"})
    assert path.name == "adapter.safetensors" and path.stat().st_size < base.stat().st_size / 5
    sam = small_detector().sam.eval().requires_grad_(False)
    card = apply_adapter(sam, path)
    assert card["adapter"]["base"]["name"] == str(base) and card["licence"] == "mine" and card["method"] == method
    x = torch.randn(1, 3, SIZE, SIZE)
    detector.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(sam.encode(x), detector.sam.encode(x))


@pytest.mark.parametrize("method", ["full", "decoder"])
def test_without_an_adapter_the_whole_network_is_left(tmp_path, method):
    detector = detector_of(method)
    path = write_weights(detector, tmp_path)
    found = read_weights(path)
    assert path.name == "weights.safetensors" and found.card["method"] == method
    assert set(found.state) == set(detector.sam.state_dict())


def test_files_load_into_a_detector(tmp_path):
    """The base below the adapter, then the adapter; or another base, which is refused for the adapter."""
    trained = detector_of("lora", seed=3)
    step(trained, "lora")
    path = write_weights(trained, tmp_path)
    base = tmp_path / "base.safetensors"
    save_checkpoint(base, small_detector(seed=3).sam.state_dict(), {"architecture": "vit_tiny"})
    fresh = detector_of("lora", seed=4)
    with pytest.raises(CheckpointError, match="load the base that it was trained on"):
        fresh.load_weights(str(path))
    fresh.load_weights(str(base))
    assert fresh.base_name == str(base)
    fresh.load_weights(str(path))
    for name, value in trained.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name
    plain = small_detector(seed=4)
    assert "loaded" in plain.load_weights(str(base))
