"""What the tests of reproduce share."""

import contextlib
import io
import logging

import pytest
from mini_collection import CONFIG, make_collection, use_config, write_model

from ultrasam.reproduce import command


@pytest.fixture(scope="session")
def collection(tmp_path_factory):
    """Data root, and weights whose masks are everything and nothing; not to be changed."""
    folder = tmp_path_factory.mktemp("reproduce")
    make_collection(folder / "data")
    write_model(folder / "all.pth", 1)
    write_model(folder / "nothing.pth", -1)
    (folder / "mini.py").write_text(CONFIG)
    return folder


@pytest.fixture(scope="session")
def ran(collection):
    """What two real tests leave: the folder, exit status, and what was printed; not to be changed."""
    printed, errors = io.StringIO(), io.StringIO()
    out = collection / "out"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        patch.delenv("ULTRASAM_DATA", raising=False)
        patch.setattr(logging, "raiseExceptions", False)
        use_config(patch, collection / "mini.py")
        status = command.main([
            "table2", "--data", str(collection / "data"), "--out", str(out), "--only", "box", "sam", "ultrasam",
            "bus_bra", "gist514_db", "--weights", f"sam={collection / 'all.pth'}",
            f"ultrasam={collection / 'nothing.pth'}",
        ])  # fmt: skip
    return out, status, printed.getvalue(), errors.getvalue()


@pytest.fixture
def mini(collection, tmp_path, monkeypatch):
    """The same in an empty working directory, with tables that use the tiny configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ULTRASAM_DATA", raising=False)
    # MMEngine's loggers of earlier runs write to the captured streams of earlier tests, which are closed.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    use_config(monkeypatch, collection / "mini.py")
    return collection
