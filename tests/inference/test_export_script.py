"""The script of docs/export.md, which has no PyTorch, gives the mask that a session gives."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ultrasam.inference.export import export_network
from ultrasam.inference.model import UltraSam
from ultrasam.modeling.build import build_sam

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"


def script():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if "onnxruntime" in block]
    return found


@pytest.mark.parametrize(
    ("arch", "passes", "size"),
    [
        ("vit_tiny", ("single", "multi"), (150, 230)),
        ("vit_tiny", (), (30, 50)),
        ("tiny_vit", ("single",), (200, 90)),
        ("tiny_vit", ("single",), (40, 48)),
    ],
)
def test_the_script_gives_the_mask_of_a_session(tmp_path, arch, passes, size):
    torch.manual_seed(0)
    sam = build_sam(arch, 64).eval().requires_grad_(False)
    height, width = size
    coarse = np.random.default_rng(0).integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((5, 5, 1), np.uint8))
    image = np.ascontiguousarray(np.pad(image, ((0, height - len(image)), (0, width - image.shape[1]), (0, 0))))
    Image.fromarray(image).save(tmp_path / "scan.png")
    box = [width // 5, height // 4, width // 2, height - 3]
    model = UltraSam(SimpleNamespace(sam=sam, passes=passes, mask_prompt=True, card={}))
    expected = model.session(image, clip=False).predict(box=box).masks[0]
    export_network(sam, tmp_path, passes=passes)

    text, count = re.subn(
        r"^folder, picture, box = .*$", f"folder, picture, box = '.', 'scan.png', {box}", script(), flags=re.MULTILINE
    )
    assert count == 1
    text += "\nimport sys\nassert 'torch' not in sys.modules and 'ultrasam' not in sys.modules\n"
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = np.asarray(Image.open(tmp_path / "exported_mask.png")) > 0
    assert found.shape == expected.shape
    assert 20 <= expected.sum() < 0.98 * expected.size
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.99


def test_the_script_is_short():
    lines = [line for line in script().splitlines() if line.strip()]
    assert len(lines) <= 35
    assert all(len(line) <= 130 for line in lines)
