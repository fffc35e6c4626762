"""Mistakes in a configuration are one sentence that names the place and the nearest valid thing."""

from pathlib import Path

import pytest
from mmengine.config import Config
from toys import toy_config

from ultrasam.engine import config as engine_config
from ultrasam.engine.build import build_everything, build_runner, explained_errors
from ultrasam.engine.checks import check_accumulation, check_config, check_selection, leaf_datasets
from ultrasam.engine.config import apply_options, load_config, parse_options, parse_value, resolve_config
from ultrasam.engine.names import accepted_arguments, nearest
from ultrasam.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("1e-4", 1e-4), ("true", True), ("False", False), ("None", None), ("text", "text"),
        ("/a b/c d", "/a b/c d"), ("1,2", [1, 2]), ("[1,2]", [1, 2]), ("(1,2)", (1, 2)),
        ("[a,b]", ["a", "b"]),
        ("{'a': 1}", {"a": 1}),
        ("'3'", "3"), ("a,b", "a,b"), ("08", "08"), ("[a", "[a"), ("", ""),
    ],
)  # fmt: skip
def test_values(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_options_need_a_value():
    assert parse_options(["a.b=1", "c=x=y"]) == {"a.b": 1, "c": "x=y"}
    for wrong in ("a.b", "=1", "+=1"):
        with pytest.raises(ConfigError, match="KEY=VALUE"):
            parse_options([wrong])


@pytest.fixture
def cfg(tmp_path):
    return Config(toy_config(tmp_path), filename=None)


def test_options_change_what_exists(cfg):
    apply_options(
        cfg, {"optim_wrapper.optimizer.lr": 0.5, "param_scheduler.1.milestones": [3], "load_from": "x"}
    )
    assert cfg.optim_wrapper.optimizer.lr == 0.5 and cfg.optim_wrapper.optimizer.type == "AdamW"
    assert cfg.param_scheduler[1].milestones == [3] and cfg.param_scheduler[0].type == "LinearLR"
    assert cfg.load_from == "x"
    apply_options(cfg, {"+model.width": 5, "model": {"dropout": 0.0}})
    assert cfg.model == {"type": "ToyModel", "width": 5, "dropout": 0.0}


@pytest.mark.parametrize(
    ("key", "nearest_name"),
    [
        ("train_dataloader.batchsize", "train_dataloader.batch_size"),
        ("optim_wraper.optimizer.lr", "optim_wrapper"),
        ("param_scheduler.2.end", "param_scheduler.0, param_scheduler.1"),
    ],
)
def test_unknown_options_are_refused(cfg, key, nearest_name):
    with pytest.raises(ConfigError) as caught:
        apply_options(cfg, {key: 1})
    assert f"{key!r} is not in the configuration" in str(caught.value)
    assert nearest_name in str(caught.value) and f"+{key}=1" in str(caught.value)


def test_a_dictionary_is_not_replaced_by_a_number(cfg):
    with pytest.raises(ConfigError, match="'model' is a dictionary with type"):
        apply_options(cfg, {"model": 3})


def test_configurations_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = ROOT / "configs/_base_/default_runtime.py"
    for name in ("configs/_base_/default_runtime.py", "_base_/default_runtime.py", "_base_/default_runtime"):
        assert resolve_config(name) == expected
    (tmp_path / "_base_").mkdir()
    (tmp_path / "_base_/default_runtime.py").write_text("a = 1\n")
    assert resolve_config("_base_/default_runtime.py") == tmp_path / "_base_/default_runtime.py"


def test_data_are_found_from_the_working_directory_then_the_project(tmp_path, monkeypatch):
    project, here = tmp_path / "project", tmp_path / "here"
    (project / "data/a").mkdir(parents=True)
    here.mkdir()
    monkeypatch.setattr(engine_config, "ROOT", project)
    monkeypatch.chdir(here)
    leaves = [{"data_root": "data/a"}, {"data_root": "data/absent"}]
    (here / "c.py").write_text(f"test_dataloader = dict(dataset=dict(datasets={leaves}))\n")
    roots = [leaf.data_root for leaf in load_config("c.py").test_dataloader.dataset.datasets]
    assert roots == [str(project / "data/a"), "data/absent"]
    (here / "data/a").mkdir(parents=True)
    assert load_config("c.py").test_dataloader.dataset.datasets[0].data_root == "data/a"


def test_missing_configuration_names_similar_ones(tmp_path, monkeypatch):
    (tmp_path / "ultrasam").mkdir()
    (tmp_path / "ultrasam/ultrasam_point.py").write_text("")
    monkeypatch.setattr(engine_config, "CONFIG_ROOT", tmp_path)
    with pytest.raises(
        ConfigError, match=r"ultrasam_pont\.py does not exist.*configs/ultrasam/ultrasam_point\.py"
    ):
        resolve_config("ultrasam/ultrasam_pont.py")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = (", "SyntaxError"),
        ("a = undefined", "NameError"),
        ("_base_ = ['absent.py']", "absent.py"),
        ("a = {}[0]", "KeyError"),
        ("a = 1 / 0", "ZeroDivisionError"),
    ],
)
def test_faulty_configurations(tmp_path, text, fault):
    path = tmp_path / "faulty.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value) and fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_base_configurations_load(tmp_path):
    path = tmp_path / "both.py"
    bases = [
        str(ROOT / "configs/_base_" / name) for name in ("default_runtime.py", "schedules/ultrasam_30k.py")
    ]
    path.write_text(f"_base_ = {bases}\n")
    cfg = load_config(path, ["randomness.seed=7"])
    assert (
        cfg.randomness.seed == 7 and cfg.train_cfg.max_iters == 30000 and cfg.train_cfg.val_interval == 2000
    )
    assert cfg.optim_wrapper.clip_grad == {"max_norm": 0.1, "norm_type": 2}
    assert cfg.optim_wrapper.optimizer == {"type": "AdamW", "lr": 1e-4, "weight_decay": 1e-4, "fused": "auto"}
    check_config(cfg)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("model", {"type": "ToyModl"}, "model.type is 'ToyModl', which is not registered.*nearest: ToyModel"),
        ("model", {"type": "ToyModel", "widht": 3}, "model sets 'widht', but ToyModel .*nearest: width"),
        (
            "custom_hooks",
            [{"type": "RecordLoss"}],
            "custom_hooks.0.type is 'RecordLoss'.*nearest: RecordLosses",
        ),
        ("custom_hooks", [{"type": "RecordLosses", "after": 1}], "custom_hooks.0 sets 'after'.*stop_after"),
        ("val_evaluator", {"type": "ToyMetrics"}, "val_evaluator.type is 'ToyMetrics'.*ToyMetric"),
        ("train_cfg", {"type": "IterBasedTrainLoop", "max_iter": 3}, "train_cfg sets 'max_iter'.*max_iters"),
        (
            "optim_wrapper",
            {"type": "OptimWraper", "optimizer": {"type": "AdamW"}},
            "'OptimWraper'.*OptimWrapper",
        ),
        (
            "optim_wrapper",
            {"optimizer": {"type": "AdamWW"}},
            "optim_wrapper.optimizer.type is 'AdamWW'.*AdamW",
        ),
    ],
)
def test_wrong_names_and_arguments(tmp_path, place, value, message):
    with pytest.raises(ConfigError, match=message):
        build_runner(Config(toy_config(tmp_path, **{place: value})))


def test_errors_of_builders_are_explained():
    from mmengine.registry import MODELS

    with (
        pytest.raises(ConfigError, match=r"head names 'ToyModle'.*nearest: ToyModel"),
        explained_errors("head"),
    ):
        MODELS.build({"type": "ToyModle"})
    with pytest.raises(ConfigError, match=r"head does not fit its class.*'depth'"), explained_errors("head"):
        MODELS.build({"type": "ToyModel", "depth": 3})
    with pytest.raises(KeyError), explained_errors("head"):
        raise KeyError("anything else")


def test_build_everything(tmp_path):
    """The toy's annotation files do not exist and it has no lazy_init, so its datasets are None."""
    cfg = Config(toy_config(tmp_path))
    built = build_everything(cfg)
    assert type(built.model).__name__ == "ToyModel"
    assert built.datasets == {"train_dataloader": None, "val_dataloader": None, "test_dataloader": None}
    assert [p.name for p in built.missing_files] == ["train.toy.json", "val.toy.json", "test.toy.json"]
    assert len(built.hooks) == 3 and set(built.evaluators) == {"val_evaluator", "test_evaluator"}
    assert type(built.optim_wrapper.optimizer).__name__ == "AdamW"
    here = tmp_path / "train.toy.json"
    here.touch()
    cfg.train_dataloader.dataset.ann_file = str(here)
    assert len(build_everything(cfg).datasets["train_dataloader"]) == 11
    assert not any(tmp_path.glob("**/*.log")), "building writes nothing"


def test_selection_on_the_test_file_is_refused(tmp_path):
    cfg = Config(toy_config(tmp_path))
    cfg.default_hooks.checkpoint.save_best = "mae"
    check_selection(cfg)
    cfg.val_dataloader.dataset = {
        "type": "ConcatDataset",
        "datasets": [{"type": "ToyDataset", "data_root": "sub/..", "ann_file": "test.toy.json"}],
    }
    with pytest.raises(
        ConfigError, match=r"save_best='mae' would choose the model by the test file .*test\.toy\.json"
    ):
        check_selection(cfg)
    cfg.allow_test_selection = True
    check_selection(cfg)
    cfg.allow_test_selection = False
    cfg.default_hooks.checkpoint.save_best = None
    check_selection(cfg)
    cfg.custom_hooks = [{"type": "EarlyStoppingHook", "monitor": "mae"}]
    with pytest.raises(ConfigError, match="EarlyStoppingHook would choose"):
        check_selection(cfg)


def test_checkpoints_fall_between_optimizer_steps(tmp_path):
    cfg = Config(toy_config(tmp_path))
    cfg.optim_wrapper.accumulative_counts = 4
    with pytest.raises(
        ConfigError, match=r"checkpoint.interval=6 is no multiple of .*accumulative_counts=4.*use 8"
    ):
        check_accumulation(cfg)
    cfg.default_hooks.checkpoint.interval = 8
    check_accumulation(cfg)


def test_leaf_datasets():
    a, b, c = ({"type": "ToyDataset", "ann_file": n} for n in "abc")
    nested = [{"type": "Repeat", "dataset": {"type": "ConcatDataset", "datasets": [a, b]}}, c]
    assert [leaf["ann_file"] for leaf in leaf_datasets(nested)] == ["a", "b", "c"]
    assert (
        next(leaf_datasets({"type": "ToyDataset", "ann_file": "d", "dataset": "bus_bra"}))["ann_file"] == "d"
    )


def test_accepted_arguments_follow_the_bases():
    class Base:
        def __init__(self, a, b=1):
            pass

    class Child(Base):
        def __init__(self, c, **kwargs):
            super().__init__(**kwargs)

    class Open:
        def __init__(self, a, **kwargs):
            pass

    assert accepted_arguments(Child) == {"a", "b", "c"}
    assert accepted_arguments(Open) is None
    assert accepted_arguments(lambda x, y: x) == {"x", "y"}


def test_nearest():
    assert nearest("toymodel", ["ToyModel", "Other"]) == "ToyModel"
    assert nearest("zzz", ["a", "b"]) == "a, b"
    assert nearest("zzz", [f"name{i}" for i in range(40)]) == "none is similar"
