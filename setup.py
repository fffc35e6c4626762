"""Install the packages ``ultrasam`` and ``data_prep`` and the command ``ultrasam``."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

EXTRAS = {
    "web": ["fastapi>=0.110", "uvicorn>=0.29"],  # the page
    "seg": ["highdicom>=0.22"],  # DICOM SEG
    "export": ["onnx>=1.16", "onnxruntime>=1.17", "onnxscript>=0.1"],
    "peft": ["peft>=0.11"],  # LoRA
    "timm": ["timm>=0.9.16"],  # encoders to compare with
}
ALL = sorted(requirement for names in EXTRAS.values() for requirement in names)
TEST = [
    "pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.6", "mypy>=1.11",
    "httpx>=0.27", "playwright>=1.44",
    # Independent truth: other implementations of the same things.
    "segment-anything==1.0", "transformers>=4.41", "scikit-image>=0.22", "monai>=1.3",
]  # fmt: skip


def requirements() -> list[str]:
    """Return the requirement lines of requirements.txt without comments."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


setup(
    name="ultrasam",
    version="0.1.0",
    description="Prompted segmentation of ultrasound images: Segment Anything trained on US-43d",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["ultrasam", "ultrasam.*", "data_prep", "data_prep.*"]),
    package_data={
        "ultrasam": ["py.typed", "reproduce/paper_tables.json", "weights/*.safetensors", "web/static/**/*"],
        "data_prep": ["py.typed"],
    },
    install_requires=requirements(),
    extras_require={**EXTRAS, "all": ALL, "test": [*ALL, *TEST]},
    entry_points={"console_scripts": ["ultrasam=ultrasam.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
