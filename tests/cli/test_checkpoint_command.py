"""``ultrasam checkpoint``: what each verb prints, and how it refuses."""

import json
from pathlib import Path

import pytest
import torch

from ultrasam.checkpoints import export, read_weights, save_checkpoint, sha256_of
from ultrasam.checkpoints import weights as weights_module
from ultrasam.checkpoints.hashing import tensors_sha256
from ultrasam.checkpoints.registry import REGISTRY
from ultrasam.cli import checkpoint
from ultrasam.cli.main import main
from ultrasam.modeling.build import build_sam

CARD = {
    "architecture": "vit_tiny",
    "mlp_residual": "single",
    "licence": "CC BY 4.0",
    "source": "a test",
    "passes": ["single", "multi"],
    "preprocessing": {"square": 128, "mode": "pad", "interpolation": "bilinear", "scaling": "mean_std"},
    "training": {
        "datasets": {
            "busi": {"application": "breast lesions", "images": 1647, "masks": 1700},
            "hc18": {"application": "fetal head", "images": 999, "masks": 999},
            "unknown": {},
        },
        "exclusions": ["BUS-BRA fold 5"],
    },
}


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return build_sam("vit_tiny", 128).state_dict()


@pytest.fixture
def path(state, tmp_path):
    save_checkpoint(tmp_path / "ours.safetensors", state, CARD)
    return tmp_path / "ours.safetensors"


def run(*arguments):
    return main(["checkpoint", *map(str, arguments)])


def the_error(capsys, status, *parts):
    """Check that a command failed with one sentence that holds some parts."""
    captured = capsys.readouterr()
    assert status == 2 and captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
    for part in parts:
        assert part in captured.err
    return captured


def test_the_help_names_every_format():
    assert tuple(export.TARGETS) == checkpoint.KINDS


def test_info(path, state, capsys):
    assert run("info", path) == 0
    lines = capsys.readouterr().out.splitlines()
    count = sum(value.numel() for value in state.values())
    for line in (
        f"file          {path}", f"sha256        {sha256_of(path)}", "format        ultrasam",
        "architecture  vit_tiny", "residual      single", f"parameters    {count:,}",
        "parts         image_encoder, prompt_encoder, mask_decoder",
        "pixels        128 x 128, aspect kept, padded, mean_std, bilinear", "passes        single, multi",
        "licence       CC BY 4.0", "source        a test", "described by  the file itself",
        "trained on    3 sets, 2,646 images, 2,699 masks", "  busi: breast lesions, 1,647 images, 1,700 masks",
        "  unknown: counts not known", "left out      BUS-BRA fold 5",
    ):  # fmt: skip
        assert line in lines, line


def test_info_as_json_of_several_files(path, capsys):
    assert run("info", "--json", path, "litemedsam") == 0
    ours, lite = json.loads(capsys.readouterr().out)
    assert ours["training"][0] == {"name": "busi", **CARD["training"]["datasets"]["busi"]}
    assert ours["exclusions"] == ["BUS-BRA fold 5"] and ours["card_from"] == "file" and ours["image_size"] == 128
    assert ours["card"]["tensors_sha256"] == tensors_sha256(read_weights(path).state)
    assert (lite["format"], lite["image_size"], lite["passes"]) == ("litemedsam", 256, ["single"])
    assert lite["card_from"] == "hash" and lite["sha256"] == REGISTRY["litemedsam"].sha256


def test_info_says_when_only_names_describe_a_file(state, tmp_path, capsys):
    torch.save(state, tmp_path / "a.pth")
    assert main(["info", str(tmp_path / "a.pth")]) == 0
    out = capsys.readouterr().out
    assert "described by  nothing" in out and "licence       unknown" in out


def test_convert_prints_what_it_compared_and_wrote(path, tmp_path, capsys):
    out = tmp_path / "UltraSam.pth"
    assert run("convert", path, out, "--to", "ultrasam_released") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("note: the MLP residual was single and is double now")
    assert sum("largest difference" in line for line in lines) == 10
    assert lines[-2].startswith("the networks are the same: largest difference ")
    assert lines[-1] == f"wrote {out} (ultrasam_released)"
    assert read_weights(out).mlp_residual == "double"
    the_error(capsys, run("convert", path, out, "--to", "sam"), str(out), "--overwrite")
    assert run("convert", path, out, "--to", "sam", "--overwrite") == 0
    assert read_weights(out).format == "sam"


def test_convert_of_garbage_writes_nothing(tmp_path, capsys):
    (tmp_path / "a.pth").write_bytes(b"<!DOCTYPE html><html></html>")
    the_error(capsys, run("convert", tmp_path / "a.pth", tmp_path / "b.pth"), "web page")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_verify(path, state, tmp_path, capsys):
    torch.save(state, tmp_path / "sam.pth")
    assert run("verify", path, tmp_path / "sam.pth") == 0
    lines = capsys.readouterr().out.splitlines()
    marks = [line.split()[:2] for line in lines if line.startswith("  ")]
    both = [["ok", "readable"], ["--", "hash"], ["ok", "finite"], ["ok", "card"], ["ok", "network"], ["ok", "forward"]]
    assert marks == [*both, *both[:3], ["--", "card"], *both[4:]]
    assert lines[-1] == "all 2 files are sound"
    assert run("verify", path, "--sha256", sha256_of(path).upper()) == 0
    assert "ok      hash" in capsys.readouterr().out


def bad_files(state, folder):
    """Files that must not pass, and what is said of them."""
    name = "mask_decoder.iou_token.weight"
    broken = {**state, name: torch.full_like(state[name], torch.inf)}
    wrong_card = {**CARD, "preprocessing": {**CARD["preprocessing"], "square": 1024}}
    save_checkpoint(folder / "infinite.pth", broken, CARD)
    save_checkpoint(folder / "missing.pth", {key: value for key, value in state.items() if key != name}, CARD)
    save_checkpoint(folder / "square.pth", state, wrong_card)
    save_checkpoint(folder / "other.pth", state, {**CARD, "architecture": "vit_b"})
    save_checkpoint(folder / "changed.pth", state, CARD)
    content = torch.load(folder / "changed.pth", weights_only=True)
    content["state_dict"][name] += 1
    torch.save(content, folder / "changed.pth")
    (folder / "sam_vit_b_01ec64.pth").write_bytes((folder / "square.pth").read_bytes())
    (folder / "cut.pth").write_bytes((folder / "square.pth").read_bytes()[:-500])
    return {
        "infinite": f"'{name}' holds values that are not finite",
        "missing": f"1 missing ({name})",
        "square": "the square is 1024 pixels but the weights are for 128",
        "other": "architecture is 'vit_b' but the weights are 'vit_tiny'",
        "changed": "tensors_sha256 is ",
        "sam_vit_b_01ec64": f"but sam_vit_b has {REGISTRY['sam_vit_b'].sha256}",
        "cut": "damaged or cut off",
    }


def test_verify_refuses_what_is_wrong(state, tmp_path, capsys):
    for stem, message in bad_files(state, tmp_path).items():
        captured = the_error(capsys, run("verify", tmp_path / f"{stem}.pth"), f"{stem}.pth: ", message)
        assert "FAILED" in captured.out, stem


def test_verify_of_a_wrong_hash(path, capsys):
    wanted = "0" * 64
    the_error(capsys, run("verify", path, "--sha256", wanted), sha256_of(path), f"expected {wanted}")
    the_error(capsys, run("verify", path, path, "--sha256", wanted), "--sha256 is the hash of one file")


def test_fetch_without_network_and_list(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ULTRASAM_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(weights_module, "LITE_PATH", tmp_path / "none.safetensors")
    status = run("fetch", "ultrasam", "--url", "http://127.0.0.1:9/UltraSam.pth")
    the_error(capsys, status, "cannot be reached", str(tmp_path / "weights" / "UltraSam.pth"))
    assert run("list") == 0
    out = capsys.readouterr().out
    for entry in REGISTRY.values():
        assert entry.name in out and entry.licence in out and (entry.sha256 or "not known") in out
    assert out.splitlines()[-1] == f"names are looked for in {tmp_path / 'weights'}"


def test_fetch_prints_where_and_what(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ULTRASAM_WEIGHTS", str(tmp_path))
    torch.save({"w": torch.ones(1)}, tmp_path / "UltraSam.pth")
    assert run("fetch", "ultrasam") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("licence CC BY-NC-SA") and "could not be compared" in lines[1]
    assert lines[-1] == f"wrote {Path(tmp_path / 'UltraSam.pth')}; use it as --weights ultrasam"


def test_a_folder_of_trainings_says_what_it_holds(tmp_path, capsys):
    torch.save({"w": torch.ones(1)}, tmp_path / "iter_5.pth")
    the_error(capsys, run("info", tmp_path), "is a folder, a weight file was expected; it holds iter_5.pth")
