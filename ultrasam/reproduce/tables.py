"""The paper's tables, and the numbers behind its Figure 4: each row with what fills it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ultrasam.reproduce.layout import PUBLISHED, Column, Row, Source, Table
from ultrasam.reproduce.paper import DATASETS, paper_tables
from ultrasam.reproduce.weights import (
    ADAPTERS,
    BACKBONES,
    FAMILIES,
    MAIN,
    SHARES,
    head_config,
    head_name,
    share_name,
)

SAM = "configs/zero_shot/sam_vit-b_us43d.py"
MEDSAM = "configs/zero_shot/medsam_vit-b_us43d.py"
MEDSAM_COMMON = "configs/zero_shot/medsam_vit-b_us43d_common.py"
RELEASED = MAIN.replace(".py", "_released.py")
NO_REFINE = MAIN.replace(".py", "_no-refine.py")

_PRECISION = (("mAP", "segm_mAP"), ("mAP50", "segm_mAP_50"))
_CLASSES = (("precision", "precision"), ("recall", "recall"), ("f1", "f1"))
# Of numbers whose name in the paper's file is none for people.
_TITLES = {"f1": "F1"}
_RELEASED_ORDER = "+model.mask_order=released"

_RELEASED = (_RELEASED_ORDER, "model.refine_with_box=True")
# The paper's names of backbones and our names of their weights.
_STARTS = {title: name for name, title in BACKBONES.items()}
_PRETRAININGS = {"US-43d": "ultrasam", "SA-1B": "sam", "US-43d + SA-1B": "ultrasam-sa1b"}


def _everywhere(config: str, weights: str, prompt: str, *options: str) -> dict[str, Source]:
    """Return the same model's test on each data set."""
    return {slug: Source(config, weights, slug, prompt, options) for slug in DATASETS}


def _without_application(prompt: str, *options: str) -> dict[str, Source]:
    """Return UltraSam*: for each data set the model that was trained without its application."""
    return {
        slug: Source(
            MAIN.replace(".py", f"_without-{family}.py"), f"ultrasam-without-{family}", slug, prompt, options
        )
        for slug, family in FAMILIES.items()
    }


def table2() -> Table:
    """Return Table 2, interactive segmentation, with rows of ours below the paper's models."""
    rows = [row for entry in paper_tables()["table2_interactive_segmentation"] for row in _table2_rows(entry)]
    columns = [Column(slug, title, metric) for slug in DATASETS for title, metric in _PRECISION]
    return Table(
        "table2",
        "Table 2: interactive segmentation (%)",
        ("prompt", "method", "category"),
        tuple(columns),
        tuple(rows),
        DATASETS,
    )


def _table2_rows(entry: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of one of the paper's models: the paper's own first."""
    prompt, method, category = (str(entry[key]) for key in ("prompt", "method", "category"))
    paper = _grouped(entry, DATASETS.values(), _PRECISION)
    nothing = (None,) * len(paper)
    clicks = {"point": "centroid", "box": "box"}[prompt]

    def row(key: str, name: str, numbers: Sequence[float | None] = paper, **more: Any) -> Row:
        return Row(f"{prompt}/{key}", (prompt, name, category), tuple(numbers), **more)

    def published(key: str, name: str, sources: Mapping[str, Source]) -> Row:
        return row(f"{key}/published", f"{name}, published protocol", sources=sources, protocol=PUBLISHED)

    if category == "A" and all(number is None for number in paper):
        yield row(method.lower(), method, unsupported=f"{method} takes no {prompt} prompts")
    elif category == "A":
        _, config = ADAPTERS[method.lower()]
        yield row(method.lower(), method, sources=_everywhere(config, method.lower(), prompt))
        # SAMUS decodes once, so there is nothing that a box could refine.
        options = _RELEASED[:1] if method == "SAMUS" else _RELEASED
        yield published(method.lower(), method, _everywhere(config, method.lower(), clicks, *options))
    elif method == "MedSAM" and prompt == "point":
        yield row("medsam", method, unsupported="MedSAM takes boxes only")
    elif method == "MedSAM":
        yield row("medsam", f"{method}, own recipe", sources=_everywhere(MEDSAM, "medsam", prompt))
        common = f"{method}, common preprocessing"
        yield row("medsam-common", common, sources=_everywhere(MEDSAM_COMMON, "medsam", prompt))
        yield published("medsam-common", common, _everywhere(MEDSAM_COMMON, "medsam", clicks, _RELEASED_ORDER))
    elif method == "SAM":
        yield row("sam", method, sources=_everywhere(SAM, "sam", prompt))
        yield published("sam", method, _everywhere(SAM, "sam", clicks, _RELEASED_ORDER))
    elif method == "UltraSam*":
        yield row("ultrasam-star", method, sources=_without_application(prompt))
        yield published("ultrasam-star", method, _without_application(clicks, *_RELEASED))
    else:
        yield row("ultrasam", method, sources=_everywhere(MAIN, "ultrasam", prompt))
        yield published("ultrasam", method, _everywhere(RELEASED, "ultrasam", clicks))
        name = f"{method}, without refinement"
        yield row("ultrasam-no-refine", name, nothing, sources=_everywhere(NO_REFINE, "ultrasam-no-refine", prompt))


_DOWNSTREAM_GROUPS = {name: name for name in ("detection", "segmentation", "classification")}
_DOWNSTREAM_COLUMNS = (
    *(Column("detection", title, f"bbox_{metric[5:]}") for title, metric in _PRECISION),
    *(Column("segmentation", title, metric) for title, metric in _PRECISION),
    *(Column("classification", _TITLES.get(title, title), metric) for title, metric in _CLASSES),
)
_DOWNSTREAM_KEYS = ("det_mAP", "det_mAP50", "seg_mAP", "seg_mAP50", "cls_precision", "cls_recall", "cls_f1")


def _downstream(start: str, dataset: str) -> dict[str, Source]:
    """Return the tests of what was trained on a backbone; detection and segmentation are one."""
    boxes_and_masks = _head_test("mask2former", start, dataset)
    return {
        "detection": boxes_and_masks,
        "segmentation": boxes_and_masks,
        "classification": _head_test("classifier", start, dataset),
    }


def _head_test(head: str, start: str, dataset: str, prompt: str = "") -> Source:
    """Return the test of what was trained for a task on weights to start from."""
    name = head_name(head, start, dataset)
    return Source(head_config(head, start, dataset), name, dataset, prompt, classes=True)


def table3() -> Table:
    """Return Table 3, backbones in instance segmentation and classification."""
    slugs = {name: slug for slug, name in DATASETS.items()}
    rows = [
        Row(
            f"{slugs[entry['dataset']]}/{_STARTS[entry['backbone']]}",
            (entry["dataset"], entry["backbone"]),
            tuple(entry[key] for key in _DOWNSTREAM_KEYS),
            _downstream(_STARTS[entry["backbone"]], slugs[entry["dataset"]]),
        )
        for entry in paper_tables()["table3_downstream"]
    ]
    return Table(
        "table3",
        "Table 3: detection, instance segmentation and classification with different backbones (%)",
        ("data set", "backbone"),
        _DOWNSTREAM_COLUMNS,
        tuple(rows),
        _DOWNSTREAM_GROUPS,
    )


def table4() -> Table:
    """Return Table 4, prompted classification."""
    rows = [
        Row(
            f"{entry['prompt']}/{_STARTS[entry['backbone']]}",
            (entry["prompt"], entry["backbone"]),
            _grouped(entry, DATASETS.values(), _CLASSES),
            {slug: _head_test("prompted", _STARTS[entry["backbone"]], slug, entry["prompt"]) for slug in DATASETS},
        )
        for entry in paper_tables()["table4_prompted_classification"]
    ]
    columns = [Column(slug, _TITLES.get(title, title), metric) for slug in DATASETS for title, metric in _CLASSES]
    return Table(
        "table4",
        "Table 4: prompted classification (%)",
        ("prompt", "backbone"),
        tuple(columns),
        tuple(rows),
        DATASETS,
    )


def table5() -> Table:
    """Return Table 5, pretraining on ultrasound, natural images or both, tested on GIST514-DB."""
    rows = [
        Row(
            entry["pretraining"].lower().replace(" ", ""),
            (entry["pretraining"],),
            tuple(entry[key] for key in _DOWNSTREAM_KEYS),
            _downstream(_PRETRAININGS[entry["pretraining"]], "gist514_db"),
        )
        for entry in paper_tables()["table5_hybrid_pretraining_on_GIST514DB"]
    ]
    return Table(
        "table5",
        "Table 5: hybrid pretraining, tested on GIST514-DB (%)",
        ("pretraining",),
        _DOWNSTREAM_COLUMNS,
        tuple(rows),
        _DOWNSTREAM_GROUPS,
    )


TASKS = {
    "point": ("interactive segmentation, point", "mAP", "segm_mAP"),
    "box": ("interactive segmentation, box", "mAP", "segm_mAP"),
    "instance": ("instance segmentation", "mAP", "segm_mAP"),
    "classification": ("classification", "F1", "f1"),
}


def figure4() -> Table:
    """Return the numbers of Figure 4: a row for each task and data set, a column for each share of its training data.

    The paper prints its curves without numbers. Those it gives elsewhere stand at 0 and 100 %: UltraSam* and UltraSam
    of Table 2, and UltraSam of Table 3.
    """
    columns = tuple(Column(str(share), "", "score") for share in SHARES)
    rows = tuple(_curve(task, slug) for task in TASKS for slug in DATASETS)
    return Table(
        "figure4",
        "Figure 4: share of the application's images in training (%)",
        ("task", "data set", "score"),
        columns,
        rows,
        {str(share): f"{share} %" for share in SHARES},
    )


def _curve(task: str, slug: str) -> Row:
    """Return one curve."""
    title, score, metric = TASKS[task]
    tables = paper_tables()
    first = None
    if task in ("point", "box"):
        found = {
            entry["method"]: entry[DATASETS[slug]][score]
            for entry in tables["table2_interactive_segmentation"]
            if entry["prompt"] == task
        }
        first, last = found["UltraSam*"], found["UltraSam"]
        sources = {str(share): Source(MAIN, share_name(slug, share), slug, task) for share in SHARES}
    else:
        head, key = ("mask2former", "seg_mAP") if task == "instance" else ("classifier", "cls_f1")
        sources = {str(share): _head_test(head, share_name(slug, share), slug) for share in SHARES}
        (last,) = [
            entry[key]
            for entry in tables["table3_downstream"]
            if (entry["dataset"], entry["backbone"]) == (DATASETS[slug], "UltraSam")
        ]
    return Row(
        f"{task}/{slug}",
        (title, DATASETS[slug], score),
        (first, *(None,) * (len(SHARES) - 2), last),
        sources=sources,
        metric=metric,
    )


def _grouped(
    entry: Mapping[str, Any], groups: Any, metrics: Sequence[tuple[str, str]]
) -> tuple[float | None, ...]:
    """Return the numbers of an entry that are grouped by data set."""
    return tuple(entry[group][title] for group in groups for title, _ in metrics)


TABLES: dict[str, Callable[[], Table]] = {
    "table2": table2, "table3": table3, "table4": table4, "table5": table5, "figure4": figure4,
}  # fmt: skip
