"""Weights: how they are made, in which order, what is taken from a folder, what is refused."""

from pathlib import Path

import pytest

from ultrasam.engine.config import load_config
from ultrasam.engine.train import parse_arguments, prepare_config
from ultrasam.errors import ConfigError
from ultrasam.reproduce.weights import HEADS, SHARES, WEIGHTS, given_weights, training_commands, what_to_get

ROOT = Path(__file__).resolve().parents[2]
DATA = Path("root")
SHARE_NAMES = tuple(f"-{share}" for share in SHARES[1:-1])


def commands(name, **given):
    return training_commands(name, {key.replace("_", "-"): Path(value) for key, value in given.items()}, DATA)


def trained_by(command):
    """What tools/train.py reads from a command of the list."""
    variable, *words = command.split()
    assert variable == "ULTRASAM_DATA=root"
    if words[0] == "python":
        del words[0]
        assert words[0] == "tools/train.py"
    else:
        assert words[0] == "tools/dist_train.sh" and words[2] == "4"
        del words[2]
    assert (ROOT / words[0]).is_file()
    return parse_arguments(words[1:])


def test_every_training_is_a_command_that_works(monkeypatch):
    monkeypatch.setenv("ULTRASAM_DATA", "root")
    for name, weights in WEIGHTS.items():
        assert weights.what and bool(weights.file) == bool(weights.url)
        assert bool(weights.command) or weights.url.startswith("https://")
        if not weights.command:
            assert not commands(name)
            continue
        arguments = trained_by(commands(name)[-1])
        assert str(arguments.work_dir) == f"work_dirs/{name}"
        first = WEIGHTS[weights.start].file or f"work_dirs/{weights.start}/iter_30000.pth"
        option = [text for text in arguments.cfg_options if text.endswith(f"weights={first}")]
        assert option or arguments.weights == first
        if "-ultrasam-" in name or (name.split("-")[0] in HEADS and not name.endswith("-bus_bra")):
            # Others of the same configuration, or of the same kind.
            continue
        arguments.weights = None
        cfg = prepare_config(arguments)
        if "-without-" in name:
            assert cfg.train_dataloader.dataset.ann_file == f"train.without_{name.split('-')[2]}.json"
        elif name.endswith(SHARE_NAMES):
            _, family, share = name.split("-")
            assert cfg.train_dataloader.dataset.ann_file == f"train.{family}_{share}.json"


def test_trainings_to_start_from_end_where_the_commands_say():
    starts = {weights.start for weights in WEIGHTS.values()} - {""}
    for name in starts:
        if not WEIGHTS[name].file:
            assert load_config(trained_by(commands(name)[-1]).config).train_cfg.max_iters == 30_000


def test_what_starts_from_a_training_comes_after_it():
    first, second = commands("classifier-ultrasam-sa1b-gist514_db")
    assert first.split()[1:4] == [
        "tools/dist_train.sh", "configs/studies/ultrasam_vit-b_4xb8-30k_us43d-sa1b.py", "4",
    ]  # fmt: skip
    assert first.endswith("--work-dir work_dirs/ultrasam-sa1b --weights sam_vit_b_01ec64.pth")
    assert second.endswith("--cfg-options model.backbone.weights=work_dirs/ultrasam-sa1b/iter_30000.pth")
    (only,) = commands("classifier-ultrasam-sa1b-gist514_db", ultrasam_sa1b="mine.pth")
    assert only.endswith("model.backbone.weights=mine.pth")
    assert "UltraSam.pth (https://" in what_to_get("prompted-ultrasam-bus_bra", {})
    assert "https" not in what_to_get("prompted-ultrasam-bus_bra", {"ultrasam": Path("x")})
    (prompted,) = commands("prompted-ultrasam-bus_bra", ultrasam="x/UltraSam.pth")
    assert prompted.endswith("--work-dir work_dirs/prompted-ultrasam-bus_bra --weights x/UltraSam.pth")


@pytest.fixture
def folder(tmp_path):
    """Work directories and a public file, among others that no table needs."""
    for name in ("mask2former-sam-bus_bra/iter_10.pth", "mask2former-sam-bus_bra/iter_9.pth", "lora/iter_5.pth",
                 "elsewhere/iter_1.pth", "samus/none.txt", "UltraSam.pth", "other.pth"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def test_a_folder_gives_what_is_named_in_it(folder):
    assert given_weights([str(folder)]) == {
        "mask2former-sam-bus_bra": folder / "mask2former-sam-bus_bra/iter_10.pth",
        "lora": folder / "lora/iter_5.pth",
        "ultrasam": folder / "UltraSam.pth",
    }
    own = f"lora={folder / 'other.pth'}"
    for texts in ([own, str(folder)], [str(folder), own]):
        assert given_weights(texts)["lora"] == folder / "other.pth"


def test_a_folder_with_two_of_a_kind_is_refused(folder):
    (folder / "ultrasam").mkdir()
    (folder / "ultrasam/iter_1.pth").write_bytes(b"x")
    with pytest.raises(ConfigError, match="holds ultrasam twice"):
        given_weights([str(folder)])
    with pytest.raises(ConfigError, match="names lora twice"):
        given_weights([f"lora={folder / 'other.pth'}", f"lora={folder / 'lora'}"])
