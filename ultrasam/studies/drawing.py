"""Table and figure of the composition study."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrasam.io.files import write_atomic
from ultrasam.visualization.lines import LineChart, Series, draw_line_charts

COLUMNS = ("task", "data_set", "family", "share", "seeds", "score", "low", "high")


def write_study(
    rows: Sequence[Mapping[str, Any]], out: Path, score: str, title: str, trends: Sequence[Mapping[str, Any]] = ()
) -> list[Path]:
    """Write ``composition.csv``, ``.md`` (with the trends), ``.png`` and ``.svg``; return them.

    The CSV is what ``tools/reproduce.py figure4 --csv`` reads where the data sets are the paper's.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    paths = [out / "composition.csv", out / "composition.md"]
    write_atomic(paths[0], buffer.getvalue().encode())
    write_atomic(paths[1], _markdown(rows, score, trends).encode())
    drawn = draw_line_charts(_charts(rows), title, "bands: 95 % intervals", score)
    for suffix, data in drawn.items():
        paths.append(out / f"composition.{suffix}")
        write_atomic(paths[-1], data)
    return paths


def _markdown(rows: Sequence[Mapping[str, Any]], score: str, trends: Sequence[Mapping[str, Any]]) -> str:
    shares = sorted({row["share"] for row in rows})
    lines = [
        f"{score}, %, by share of the application's images in training, with 95 % intervals.",
        "",
        "| prompt | data set | " + " | ".join(f"{share} %" for share in shares) + " |",
        "|" + "---|" * (2 + len(shares)),
    ]
    for task, dataset in dict.fromkeys((row["task"], row["data_set"]) for row in rows):
        cells = {row["share"]: row for row in rows if (row["task"], row["data_set"]) == (task, dataset)}
        texts = [
            f"{cells[share]['score']:.1f} ({cells[share]['low']:.1f}-{cells[share]['high']:.1f})"
            if share in cells
            else "-"
            for share in shares
        ]
        lines.append(f"| {task} | {dataset} | " + " | ".join(texts) + " |")
    if trends:
        lines += ["", "Change from 0 to 100 % on a line through all runs, in percent points, with 95 % intervals.", ""]
        lines += ["| prompt | data set | runs | change |", "|---|---|---|---|"]
    for row in trends:
        change = f"{row['change']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"
        lines.append(f"| {row['task']} | {row['data_set']} | {row['runs']} | {change} |")
    return "\n".join(lines) + "\n"


def _charts(rows: Sequence[Mapping[str, Any]]) -> list[LineChart]:
    charts = []
    for task in dict.fromkeys(row["task"] for row in rows):
        series = []
        mine = [row for row in rows if row["task"] == task]
        for dataset in dict.fromkeys(row["data_set"] for row in mine):
            line = sorted((row for row in mine if row["data_set"] == dataset), key=lambda row: row["share"])
            numbers = {key: [row[key] / 100 for row in line] for key in ("score", "low", "high")}
            places = [float(row["share"]) for row in line]
            series.append(Series(dataset, places, numbers["score"], numbers["low"], numbers["high"]))
        ticks = [(float(share), f"{share} %") for share in sorted({row["share"] for row in mine})]
        charts.append(LineChart(f"{task} prompt", "share of the application's images in training", ticks, series))
    return charts
