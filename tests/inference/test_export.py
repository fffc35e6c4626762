"""Exported graphs give what PyTorch gives, carry what must be known, and come both or not at all."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.inference import export as module
from ultrasam.inference.export import export_network, read_about
from ultrasam.inference.export_check import LIMIT, require_parity
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.prompt_encoder import Prompts

CARD = {"name": "toy", "licence": "none"}


def network(arch, size, residual="single", **preprocessing):
    torch.manual_seed(0)
    sam = build_sam(arch, size, preprocessing or None)
    with torch.no_grad():
        # Blocks of TinyViT start as the identity, which would hide a wrong branch.
        for name, parameter in sam.named_parameters():
            if name.endswith("conv3.bn.weight"):
                parameter.fill_(0.5)
            if "rel_pos" in name:
                parameter.normal_(std=0.2)
    for name, value in sam.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
    sam.set_mlp_residual(residual)
    return sam.eval().requires_grad_(False)


@pytest.fixture(
    scope="module", params=[("vit_tiny", "single"), ("vit_tiny", "double"), ("tiny_vit", "single")], ids=str
)
def exported(request, tmp_path_factory):
    arch, residual = request.param
    sam = network(arch, 64, residual)
    out = tmp_path_factory.mktemp("exported")
    done = export_network(sam, out, card=CARD, passes=["single", "multi"], masks=True, sha256="ab" * 32)
    return sam, out, done


def sessions(out):
    return [
        onnxruntime.InferenceSession(str(out / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        for name in ("encoder", "decoder")
    ]


def test_onnx_gives_the_numbers_of_pytorch(exported):
    """Own comparison on sizes and numbers of prompts that neither tracing nor the check at export used."""
    sam, out, done = exported
    encoder, decoder = sessions(out)
    rng = np.random.default_rng(3)
    for size in ((64, 64), (17, 64), (64, 1)):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        (found,) = encoder.run(None, {"image": image})
        with torch.no_grad():
            expected = sam.encode(sam.preprocessing.batch([torch.from_numpy(image).permute(2, 0, 1)]))
        assert np.abs(found - expected.numpy()).max() < LIMIT
        assert expected.abs().max() > 0.5
    side = sam.low_res_size
    for objects, tokens in ((1, 1), (1, 2), (6, 4), (2, 33)):
        labels = rng.integers(-2, 4, (objects, tokens))
        labels[:, 0] = 1
        coords = (rng.random((objects, tokens, 2)) * 64).astype(np.float32)
        prior = rng.normal(0, 3, (objects, 1, side, side)).astype(np.float32)
        has = rng.random(objects) < 0.5
        size = np.array([37, 91])
        logits, iou, masks = decoder.run(
            None,
            {"embedding": found, "coords": coords, "labels": labels, "mask": prior, "has_mask": has,
             "original_size": size},
        )  # fmt: skip
        arrays = (torch.from_numpy(value) for value in (coords, labels))
        prompts = Prompts(
            *arrays, torch.zeros(objects, dtype=torch.long), torch.from_numpy(prior), torch.from_numpy(has)
        )
        with torch.no_grad():
            answers = [sam.decode(torch.from_numpy(found), prompts, multimask) for multimask in (False, True)]
        for value, part in ((logits, 0), (iou, 1)):
            expected = torch.cat([answer[part] for answer in answers], dim=1).numpy()
            assert value.shape == expected.shape
            assert np.abs(value - expected).max() < LIMIT
        whole = SquareTransform.fit(37, 91, 64).logits_back(torch.from_numpy(logits).flatten(0, 1))
        assert np.abs(masks.reshape(whole.shape) - whole.numpy()).max() < LIMIT
    assert done.parity.keys() == {"embedding", "logits", "iou", "masks"}
    assert max(done.parity.values()) < LIMIT


def test_metadata_is_in_both_files(exported):
    sam, out, done = exported
    for path, part in zip(done.files, ("encoder", "decoder"), strict=True):
        about = read_about(path)
        assert about["part"] == part
        assert about["card"] == CARD and about["weights_sha256"] == "ab" * 32
        assert about["passes"] == ["single", "multi"] and about["mask_prompt"] is True
        assert about["mlp_residual"] == sam.mlp_residual and about["architecture"] == sam.arch
        assert about["preprocessing"]["square"] == 64
        assert about["preprocessing"]["scaling"] == sam.preprocessing.scaling
        graph = onnx.load(str(path)).graph
        assert [value.name for value in graph.input] == about["inputs"]
        assert [value.name for value in graph.output] == about["outputs"]
    assert sorted(path.name for path in out.iterdir()) == ["decoder.onnx", "encoder.onnx"]


def test_the_network_is_left_as_it_was(tmp_path):
    sam = network("vit_tiny", 64)
    sam.train().requires_grad_(True)
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    export_network(sam, tmp_path, format="torchscript")
    assert sam.training and all(parameter.requires_grad for parameter in sam.parameters())
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())
    assert {block.attn.path for block in sam.image_encoder.blocks} == {"auto"}


def test_torchscript_gives_the_numbers_of_pytorch(tmp_path):
    sam = network("tiny_vit", 64, "double", mode="squash", scaling="min_max")
    done = export_network(sam, tmp_path, format="torchscript", card=CARD, passes=["single"])
    assert [path.name for path in done.files] == ["encoder.pt", "decoder.pt"]
    encoder, decoder = (torch.jit.load(str(path)) for path in done.files)
    image = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8)
    prompts = Prompts(torch.rand(5, 3, 2) * 64, torch.tensor([[1, 0, -1]] * 5), torch.zeros(5, dtype=torch.long))
    with torch.no_grad():
        embedding = sam.encode(sam.preprocessing.batch([image.permute(2, 0, 1)]))
        assert (encoder(image) - embedding).abs().max() < LIMIT
        side = sam.low_res_size
        logits, iou = decoder(
            embedding, prompts.coords, prompts.labels, torch.zeros(5, 1, side, side), torch.zeros(5, dtype=torch.bool)
        )
        expected = sam.decode(embedding, prompts, multimask=True)
    assert (logits[:, 1:] - expected[0]).abs().max() < LIMIT and (iou[:, 1:] - expected[1]).abs().max() < LIMIT
    about = read_about(done.files[1])
    assert about["card"] == CARD and about["passes"] == ["single"]


def test_large_weights_go_to_a_file_of_their_own(tmp_path, monkeypatch):
    sam = network("vit_tiny", 64)
    monkeypatch.setattr(module, "ONE_FILE_BYTES", 5_000_000)
    done = export_network(sam, tmp_path)
    assert [path.name for path in done.files] == ["encoder.onnx", "decoder.onnx", "decoder.onnx.data"]
    sessions(tmp_path)
    assert read_about(done.files[1])["part"] == "decoder"
    monkeypatch.undo()
    export_network(sam, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoder.onnx", "encoder.onnx"]


@pytest.mark.parametrize("stage", ["compare", "_to_onnx"])
def test_nothing_stays_of_an_export_that_fails(tmp_path, monkeypatch, stage):
    (tmp_path / "old").mkdir()
    for name in ("encoder.onnx", "decoder.onnx"):
        (tmp_path / "old" / name).write_bytes(b"before")
    calls = []

    def fails(*args):
        calls.append(args)
        if stage == "compare" or len(calls) == 2:
            raise ConfigError("does not fit")
        args[1].write_bytes(b"half")

    monkeypatch.setattr(module, stage, fails)
    for out in (tmp_path / "old", tmp_path / "new"):
        calls.clear()
        with pytest.raises(ConfigError, match="does not fit"):
            export_network(network("vit_tiny", 64), out)
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["decoder.onnx", "encoder.onnx"]
    assert (tmp_path / "old" / "encoder.onnx").read_bytes() == b"before"


def test_a_difference_is_refused():
    require_parity({"logits": LIMIT})
    for gap in (2 * LIMIT, float("nan")):
        with pytest.raises(ConfigError, match="the exported logits differs"):
            require_parity({"iou": 0.0, "logits": gap})


def test_wrong_requests_are_refused(tmp_path, monkeypatch):
    sam = network("vit_tiny", 64)
    with pytest.raises(ConfigError, match="one of onnx, torchscript, found 'tflite'"):
        export_network(sam, tmp_path, format="tflite")
    with pytest.raises(ConfigError, match="not plain"):
        export_network(sam, tmp_path, card={"score": float("nan")})
    with pytest.raises(DataError, match="does not exist"):
        read_about(tmp_path / "encoder.onnx")
    for name in ("a.onnx", "a.pt"):
        (tmp_path / name).write_bytes(b"not a model at all")
        with pytest.raises(DataError, match="export it again"):
            read_about(tmp_path / name)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), str(tmp_path / "b.onnx"))
    with pytest.raises(DataError, match="not written by 'ultrasam export'"):
        read_about(tmp_path / "b.onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        export_network(sam, tmp_path / "file" / "out")

    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package onnx; run pip install 'ultrasam\[export\]'"):
        export_network(sam, tmp_path)
    json.dumps(CARD)
