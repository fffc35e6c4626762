"""The documentation works: every bash and python block runs, links lead somewhere, options are the real ones.

A page's blocks run in order, each in a shell or interpreter of its own, in one temporary folder that has links to
``tools`` and ``configs`` and a phantom of 15 images. ``shrunk`` makes commands small; it changes sizes, numbers of
iterations and of workers, moves prompts, and turns ``make`` into its dry run. A block after
``<!-- not run: reason -->`` is only checked for syntax.
"""

import inspect
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ultrasam.datasets.phantom.generate import generate_phantom
from ultrasam.datasets.phantom.patients import KINDS, draw_picture
from ultrasam.engine.test import main as run_test_command
from ultrasam.engine.train import main as run_train_command

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
NOT_RUN = re.compile(r"<!-- not run: (\S.*\S) -->")
FEW = "{0}_dataloader.num_workers=0 +{0}_dataloader.dataset.indices=2"
LOADERS = f"train_dataloader.batch_size=1 {FEW.format('train')} {FEW.format('val')}"
PHANTOM = "--images 15 --size 96 --workers 1"
# Boxes and points of lesions of the phantom that a reader makes, and where those of the small phantom are.
MOVED = {
    "188,19,269,119": "70,7,101,44", "228,60": "85,25", "60,120,140,190": "5,40,50,75", "100,170": "20,70",
    "161,86,221,137": "60,32,83,52",
}  # fmt: skip


@dataclass
class Block:
    """A fenced block: its page and first line, its language, why it is not run (or None), and its text."""

    where: str
    language: str
    excuse: str | None
    text: str


def blocks(page):
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        excuse = NOT_RUN.fullmatch(lines[start - 1]) if start else None
        text = "\n".join(lines[start + 1 : number]) + "\n"
        where = f"{page.relative_to(ROOT)}:{start + 1}"
        found.append(Block(where, lines[start][3:].strip(), excuse and excuse.group(1), text))
        start = None
    assert start is None, f"{page}: a block is not closed"
    return found


def shrunk(script):
    """Make the commands of a script small, one logical line at a time."""
    lines = []
    for line in script.replace("\\\n", " ").splitlines():
        line = re.sub(r"^make (\w+)", rf"make -n -C '{ROOT}' \1", line)
        line = re.sub(r"^(ultrasam phantom \S+)", rf"\1 {PHANTOM}", line)
        if re.search(r"\btools/train\.py\b", line):
            # 100, 200 and 300 iterations become 1, 2 and 3.
            line = re.sub(r"max_iters=(\d+)00\b", r"max_iters=\1", line)
            short = "" if "max_iters=" in line else "train_cfg.max_iters=1"
            line = f"{line} --cfg-options {LOADERS} {short}"
        if re.search(r"\btools/test\.py\b", line):
            line = f"{line} --cfg-options {FEW.format('test')}"
        lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documentation") / "phantom"
    generate_phantom(folder, 15, 0, size=96, workers=1)
    return folder


@pytest.fixture
def workspace(tmp_path, phantom):
    """A folder that looks like the repository to a command, and where commands may write."""
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "work_dirs").mkdir()
    # The pages share embeddings, which takes most of the time.
    (phantom.parent / "embeddings").mkdir(exist_ok=True)
    (tmp_path / "work_dirs" / "embeddings").symlink_to(phantom.parent / "embeddings")
    # generate_phantom keeps one that is the same, so pages may make it again.
    (tmp_path / "data" / "phantom").symlink_to(phantom)
    return tmp_path


def environment():
    scripts = Path(sys.executable).parent
    unset = {"ULTRASAM_PHANTOM", "ULTRASAM_DATA", "MAKEFLAGS", "MAKELEVEL"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def moved(text):
    """Put the prompts for the phantom that a reader makes where the small phantom has its lesions."""
    for here, there in MOVED.items():
        text = text.replace(here, there).replace(here.replace(",", ", "), there.replace(",", ", "))
    return text


def run_block(block, folder):
    text = moved(block.text)
    if block.language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", shrunk(text)]
    else:
        command = [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{block.where}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def some_slow(page):
    marks = [pytest.mark.slow] if page.name in ("training.md", "testing.md", "evaluation.md") else []
    return pytest.param(page, marks=marks, id=page.relative_to(ROOT).as_posix())


@pytest.mark.parametrize(("size", "boxes", "point"), [
    (256, ("188,19,269,119", "161,86,221,137"), "228,60"), (96, ("70,7,101,44", "60,32,83,52"), "85,25"),
])  # fmt: skip
def test_prompts_of_the_pages_are_on_lesions(size, boxes, point):
    """Of the phantom with the default size, and of the small one that the tests make."""
    (kind,) = (number for number, about in enumerate(KINDS) if about.slug == "phantom_breast")
    for patient, box in enumerate(boxes):
        ((_, mask),) = draw_picture(kind, patient, 0, 0, size).masks
        rows, columns = mask.nonzero()
        assert box == f"{columns.min()},{rows.min()},{columns.max() + 1},{rows.max() + 1}"
        if patient == 0:
            x, y = map(int, point.split(","))
            assert mask[y, x]


@pytest.mark.parametrize("page", [some_slow(page) for page in PAGES])
def test_blocks_run(page, workspace):
    for block in blocks(page):
        if block.language in ("bash", "python") and block.excuse is None:
            output = run_block(block, workspace)
            if "make demo" in block.text:
                assert "ultrasam demo" in output and "pytest" in output, "the dry run shows what make would do"
    if page.parent == ROOT:
        assert (workspace / "work_dirs/mask/phantom_breast_0001_1_overlay.png").is_file()
        assert list((workspace / "work_dirs/from_python").glob("*"))
        assert (workspace / "work_dirs/boxes/metrics.json").is_file()


def test_every_block_says_what_it_is():
    for page in PAGES:
        for block in blocks(page):
            assert block.language in ("bash", "python", "text", "bibtex"), block.where
            if block.language == "bash":
                done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=30)
                assert done.returncode == 0, f"{block.where}: {done.stderr}"
            if block.language == "python":
                compile(block.text, block.where, "exec")


def test_readme_runs_what_it_promises():
    found = blocks(ROOT / "README.md")
    ran = "".join(block.text for block in found if block.excuse is None)
    promised = ("make demo", "make test", "tools/train.py", "tools/test.py", "ultrasam predict", "import UltraSam")
    for command in promised:
        assert command in ran
    assert sum(block.excuse is None for block in found if block.language == "bash") >= 5


def anchors(page):
    """Names that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    # Code may have the signs of a link.
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_of_the_project_that_are_named_exist(page):
    pattern = r"(?<![\w/.<-])((?:configs|tools|ultrasam|tests|docs)/[\w./-]*\w\.(?:py|sh|md|png))"
    for name in re.findall(pattern, page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file() or (page.parent / name).is_file(), f"{page.name} names {name}"


def test_every_page_is_listed():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"({page.name})" in index


@pytest.mark.parametrize(
    ("page", "command"), [("training.md", run_train_command), ("testing.md", run_test_command)]
)
def test_options_are_documented_and_exist(page, command, capsys):
    with pytest.raises(SystemExit):
        command(["--help"])
    real = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `--")]
    named = {option for cell in cells for option in re.findall(r"--[a-z][a-z-]+", cell)}
    assert named == real


@pytest.mark.parametrize("page", ["training.md", "testing.md"])
def test_options_of_the_model_exist(page):
    from ultrasam.engine.setup import register_all

    register_all()
    from ultrasam.models.detector import UltraSamDetector

    real = set(inspect.signature(UltraSamDetector).parameters)
    table = (ROOT / "docs" / page).read_text(encoding="utf-8").partition("| `model.` |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    assert len(named) >= 3 and named <= real


def test_values_of_configurations_exist():
    from ultrasam.engine.config import load_config
    from ultrasam.engine.setup import register_all

    register_all()
    from ultrasam.datasets.dataset import PromptedCocoDataset
    from ultrasam.models.classifier import ImageClassifier
    from ultrasam.models.detector import UltraSamDetector
    from ultrasam.models.mask2former import Mask2FormerDetector

    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    builders = (UltraSamDetector, Mask2FormerDetector, ImageClassifier)
    model = {name for builder in builders for name in inspect.signature(builder).parameters}
    assert set(re.findall(r"\bmodel\.([a-z]\w+)(?=[=`])", text)) <= model
    dataset = set(inspect.signature(PromptedCocoDataset).parameters)
    assert set(re.findall(r"_dataloader\.dataset\.(\w+)", text)) <= dataset
    cfg = load_config("configs/demo/litemedsam_decoder_phantom.py")
    for name in re.findall(r"`((?:env_cfg|optim_wrapper|default_hooks|recompute|compile|allow)[\w.]*)", text):
        node = cfg
        for part in name.split("."):
            assert part in node, name
            node = node[part]


def test_the_changelog_has_this_version():
    import ultrasam

    assert f"## [{ultrasam.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
