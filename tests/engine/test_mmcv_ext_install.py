"""Installing the replacement of ``mmcv._ext``: when it acts, when it keeps away, what it says."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import mmcv
import pytest

from ultrasam.engine import mmcv_ext
from ultrasam.engine.mmcv_ext.names import OP_NAMES
from ultrasam.engine.mmcv_ext.replacement import build_module, implemented_ops
from ultrasam.errors import ConfigError, UltraSamError

OPS_FOLDER = Path(mmcv.__file__).parent / "ops"


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def names_asked_by_mmcv() -> set[str]:
    """Names in every call of ``load_ext`` in the installed mmcv, read from its source."""
    asked: set[str] = set()
    for path in OPS_FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "load_ext":
                asked.update(ast.literal_eval(node.args[1]))
    return asked


@pytest.fixture
def without_ext(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state before any call of install, restored afterwards."""
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    monkeypatch.delattr(mmcv, "_ext", raising=False)


def test_every_name_that_mmcv_asks_for_is_there() -> None:
    asked = names_asked_by_mmcv()
    assert len(asked) > 100
    module = build_module()
    assert [name for name in sorted(asked) if not callable(getattr(module, name, None))] == []
    assert set(OP_NAMES) >= asked
    assert set(implemented_ops()) <= set(OP_NAMES)


@pytest.mark.usefixtures("without_ext")
def test_install_twice_keeps_the_first_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmcv, "_ext", None, raising=False)
    assert not mmcv_ext.is_installed()
    assert mmcv_ext.install() is True
    first = sys.modules["mmcv._ext"]
    assert mmcv_ext.install() is True
    assert sys.modules["mmcv._ext"] is first is mmcv._ext
    assert mmcv_ext.is_installed()


def test_a_loaded_real_module_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModuleType("mmcv._ext")
    monkeypatch.setitem(sys.modules, "mmcv._ext", real)
    assert mmcv_ext.install() is False
    assert sys.modules["mmcv._ext"] is real
    assert not mmcv_ext.is_installed()


@pytest.mark.usefixtures("without_ext")
def test_a_real_module_on_disk_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "_ext.py").write_text("COMPILED = True\n", encoding="utf-8")
    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
    assert mmcv_ext.install() is False
    assert "mmcv._ext" not in sys.modules, "the compiled module must not even be loaded"
    assert not mmcv_ext.is_installed()


@pytest.mark.usefixtures("without_ext")
def test_no_mmcv_at_all_is_one_sentence_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmcv", None)
    with pytest.raises(ConfigError, match="pip install mmcv-lite"):
        mmcv_ext.install()


@pytest.mark.parametrize("name", ["nms_rotated", "carafe_forward", "sync_bn_forward_mean"])
def test_missing_operators_name_themselves_and_the_remedy(name: str) -> None:
    function = getattr(build_module(), name)
    assert function.__name__ == name
    with pytest.raises(NotImplementedError, match=rf"'{name}'.*mim install mmcv==2\.1\.0") as caught:
        function(1, 2, key=3)
    assert isinstance(caught.value, UltraSamError)
    assert "\n" not in str(caught.value)


def test_importing_the_package_changes_nothing() -> None:
    output = run_python(
        "import sys, ultrasam.engine.mmcv_ext as e\n"
        "print('mmcv' in sys.modules, 'mmcv._ext' in sys.modules, e.is_installed())"
    )
    assert output.split() == ["False", "False", "False"]


def test_mmdet_imports_whole_after_install() -> None:
    output = run_python(
        "from ultrasam.engine import mmcv_ext\n"
        "assert mmcv_ext.install()\n"
        "import mmdet.apis, mmdet.datasets, mmdet.engine, mmdet.evaluation, mmdet.models\n"
        "from mmdet.utils import register_all_modules\n"
        "register_all_modules()\n"
        "import mmcv._ext as ext\n"
        "from mmcv.utils import collect_env\n"
        "from mmdet.registry import MODELS\n"
        "env = collect_env()\n"
        "print(MODELS.get('Mask2Former').__name__, env['MMCV CUDA Compiler'], env['MMCV Compiler'])"
    )
    assert output.splitlines()[-1].startswith("Mask2Former not available none (operators from torchvision")
