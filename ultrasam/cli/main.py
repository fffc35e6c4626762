"""The command ``ultrasam``: one verb a task."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

Verb = Callable[[Sequence[str]], int]


def phantom(argv: Sequence[str]) -> int:
    """Make the synthetic datasets."""
    from ultrasam.datasets.phantom.cli import main as run

    return run(argv)


def train(argv: Sequence[str]) -> int:
    """Train a configuration (tools/train.py)."""
    from ultrasam.engine.train import main as run

    return run(argv)


def test(argv: Sequence[str]) -> int:
    """Test a checkpoint (tools/test.py)."""
    from ultrasam.engine.test import main as run

    return run(argv)


def demo(argv: Sequence[str]) -> int:
    """Make the phantom, train, test with points and boxes, and draw the results."""
    from ultrasam.cli.demo import main as run

    return run(argv)


def info(argv: Sequence[str]) -> int:
    """Say what a weight file holds."""
    from ultrasam.cli.info import main as run

    return run(argv)


def checkpoint(argv: Sequence[str]) -> int:
    """Say what weight files hold, convert, check and download them."""
    from ultrasam.cli.checkpoint import main as run

    return run(argv)


def compare(argv: Sequence[str]) -> int:
    """Compare two result folders object by object, with intervals."""
    from ultrasam.cli.compare import main as run

    return run(argv)


def robustness(argv: Sequence[str]) -> int:
    """Measure Dice against box jitter, click position, number of clicks and object size."""
    from ultrasam.cli.robustness import main as run

    return run(argv)


def web(argv: Sequence[str]) -> int:
    """Serve the page: open a file in the browser, click, download masks."""
    from ultrasam.cli.web import main as run

    return run(argv)


def study(argv: Sequence[str]) -> int:
    """List, run and collect the trainings of the composition study."""
    from ultrasam.cli.study import main as run

    return run(argv)


def predict(argv: Sequence[str]) -> int:
    """Segment what points and boxes show in images, DICOM, volumes and videos."""
    from ultrasam.cli.predict import main as run

    return run(argv)


def finetune(argv: Sequence[str]) -> int:
    """Fine-tune weights on your own COCO files, all of them or a small part (LoRA, ...)."""
    from ultrasam.cli.finetune import main as run

    return run(argv)


def segment(argv: Sequence[str]) -> int:
    """Segment everything in images, without a prompt."""
    from ultrasam.cli.segment import main as run

    return run(argv)


def embed(argv: Sequence[str]) -> int:
    """Write encoder features for one's own head."""
    from ultrasam.cli.embed import main as run

    return run(argv)


def export(argv: Sequence[str]) -> int:
    """Write encoder and decoder as ONNX or TorchScript."""
    from ultrasam.cli.export import main as run

    return run(argv)


VERBS: dict[str, Verb] = {
    "predict": predict, "segment": segment, "embed": embed, "export": export, "finetune": finetune,
    "demo": demo, "train": train, "test": test, "compare": compare, "robustness": robustness, "study": study,
    "phantom": phantom, "info": info, "checkpoint": checkpoint, "web": web,
}  # fmt: skip


def usage() -> str:
    """Return the list of verbs with the first line of what each does."""
    lines = [f"  {name:<10} {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()]
    return "usage: ultrasam VERB ...   (ultrasam VERB --help)\n" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; return the exit status, 2 for one that does not exist."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments and arguments[0] == "--version":
        import ultrasam

        print(ultrasam.__version__)
        return 0
    if not arguments or arguments[0] not in VERBS:
        found = f"unknown verb {arguments[0]!r}; " if arguments else ""
        print(f"{found}{usage()}", file=sys.stderr)
        return 2
    return VERBS[arguments[0]](arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
