"""What may import what, and rules that hold for every file of the project."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPENMMLAB = {"mmengine", "mmcv", "mmdet"}
WITHOUT_OPENMMLAB = (
    "modeling", "inference", "io", "geometry", "checkpoints", "adapters", "web", "visualization/overlay.py",
)  # fmt: skip
SKIPPED_FOLDERS = {"build", "dist", "data", "work_dirs", "__pycache__"}


def project_files():
    """All files of the project that git would take, whether or not this is a checkout."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = parts[0].startswith(".") and parts[0] not in (".ci", ".pre-commit-config.yaml", ".gitignore")
        if not hidden and not any(p in SKIPPED_FOLDERS or p.endswith(".egg-info") for p in parts) and path.is_file():
            yield path


def python_files(*folders):
    for folder in folders:
        path = ROOT / folder
        yield from [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def imports(path):
    """Yield (line, module) of every import statement of a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.lineno, str(node.module)


def top(module):
    return module.split(".")[0]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loaded_by(*modules):
    """Names of the top-level packages in sys.modules after importing some modules in a fresh process."""
    code = f"import {', '.join(modules)}, sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return set(done.stdout.split())


def test_modeling_imports_torch_only():
    allowed = set(sys.stdlib_module_names) | {"torch"}
    found = [
        f"{path}:{line} imports {module}"
        for path in python_files("ultrasam/modeling")
        for line, module in imports(path)
        if top(module) not in allowed and not module.startswith("ultrasam.modeling")
    ]
    assert not found


def test_torch_only_packages_do_not_name_openmmlab():
    folders = [f"ultrasam/{name}" for name in WITHOUT_OPENMMLAB if (ROOT / "ultrasam" / name).exists()]
    files = list(python_files(*folders))
    assert len(files) > 20
    found = [f"{path}:{line} {module}" for path in files for line, module in imports(path) if top(module) in OPENMMLAB]
    assert not found


@pytest.mark.parametrize("name", WITHOUT_OPENMMLAB)
def test_torch_only_packages_do_not_load_openmmlab(name):
    path = ROOT / "ultrasam" / name
    if not path.exists():
        pytest.skip(f"ultrasam/{name} is not part of this version")
    loaded = loaded_by(*(module_name(file) for file in python_files(f"ultrasam/{name}")))
    assert not loaded & OPENMMLAB


def test_loading_modeling_loads_no_other_part_of_ultrasam():
    files = [module_name(file) for file in python_files("ultrasam/modeling")]
    code = f"import {', '.join(files)}, sys; print(*(m for m in sys.modules if m.startswith('ultrasam.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split()
    assert not [name for name in done.stdout.split() if not name.startswith("ultrasam.modeling")]


def test_nothing_in_ultrasam_imports_data_prep():
    # Benchmarks of data preparation and of a collection of full size are tools that both packages serve.
    allowed = ("benchmark_data.py", "benchmark_scale.py")
    files = [path for path in python_files("ultrasam", "tools") if path.name not in allowed]
    found = [f"{path}:{line}" for path in files for line, module in imports(path) if top(module) == "data_prep"]
    assert not found


def test_data_prep_uses_few_parts_of_ultrasam():
    allowed = tuple(f"ultrasam.{name}" for name in ("io", "geometry", "datasets.coco", "errors", "visualization"))
    found = [
        f"{path}:{line} imports {module}"
        # The benchmark loads what was merged as training does.
        for path in python_files("data_prep")
        if path.name != "benchmark.py"
        for line, module in imports(path)
        if top(module) in OPENMMLAB | {"torch"}
        or (module.startswith("ultrasam.") and not module.startswith(allowed))
    ]
    assert not found


def test_import_of_ultrasam_does_nothing():
    code = (
        "import sys, os, pathlib, warnings\n"
        "before = (set(os.listdir()), dict(os.environ), list(sys.path), list(warnings.filters))\n"
        "import ultrasam\n"
        "assert before == (set(os.listdir()), dict(os.environ), list(sys.path), list(warnings.filters))\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert not set(done.stdout.split()) & (OPENMMLAB | {"torch", "numpy", "cv2"})


def test_the_command_does_not_load_torch_to_show_its_usage():
    assert not loaded_by("ultrasam.cli.main") & (OPENMMLAB | {"torch"})


def test_no_file_is_long():
    long = {}
    for path in project_files():
        if path.suffix in (".py", ".sh"):
            count = len(path.read_text(encoding="utf-8").splitlines())
            if count > 500:
                long[str(path)] = count
    assert not long


def test_no_argument_is_parsed_by_bool():
    # bool("False") is True, so argparse would take every text for yes.
    found = []
    for path in python_files("ultrasam", "data_prep", "tools", "tests"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "type" and isinstance(node.value, ast.Name):
                found += [f"{path}:{node.value.lineno}"] * (node.value.id == "bool")
    assert not found


def test_no_path_of_one_machine():
    # Put together here, so that this file does not hold what it looks for.
    # A test of hostile archives names a file evil.txt in a temporary folder.
    places = "|".join("/" + name for name in ("work/", "tmp/(?!evil)", "home/", "root/", "Users/", "mnt/", "scratch/"))
    pattern = re.compile(rf"(?<![\w.~}}-])(?:{places})\w")
    found, read = [], 0
    for path in project_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        read += 1
        found += [f"{path}:{number} {line.strip()}" for number, line in enumerate(lines, 1) if pattern.search(line)]
    assert read > 100
    assert not found


def test_test_files_have_names_of_their_own():
    # pytest imports test files of folders without __init__.py by their bare name.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
