"""Install the packages ``ultrasam`` and ``data_prep`` and the command ``ultrasam``."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


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
    package_data={"ultrasam": ["py.typed", "reproduce/paper_tables.json"], "data_prep": ["py.typed"]},
    install_requires=requirements(),
    extras_require={
        "test": [
            "pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "segment-anything==1.0",
            "ruff>=0.6", "mypy>=1.11", "scikit-image>=0.22", "monai>=1.3",
        ],
    },
    entry_points={"console_scripts": ["ultrasam=ultrasam.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
