"""Draw ``plots/*.svg`` from the newest line of each file of results: every sample a point, medians marked.

``python -m bench.plot`` in the peers' environment, which has matplotlib; the same results make the same bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
Sample = dict[str, float]
Record = dict[str, Any]
# Colours that stand out from GitHub's white and from its near-black alike; backgrounds stay transparent.
_OURS, _FLOOR, _OTHERS, _INK = "#d9480f", "#2b8a3e", "#748ffc", "#868e96"
_ROW, _WIDTH, _MARGIN = 0.24, 8.0, 1.0  # inches
_GIB, _MIB = 2**30, 2**20
_OVERVIEW = ("plain", "tls", "capped")


@dataclass(frozen=True, slots=True)
class Axis:
    """One figure of a sample, as it is drawn; ``of`` gets the record, the contender's bytes and the sample."""

    label: str
    of: Callable[[int, Sample], float | None]
    log: bool = False


def _plain(name: str, scale: float = 1.0) -> Callable[[int, Sample], float | None]:
    return lambda _, sample: sample[name] * scale if name in sample else None


def _cpu_per_gib(size: int, sample: Sample) -> float | None:
    return (sample["user"] + sample["sys"]) / size * _GIB if size else None


_WALL = Axis("wall, s", _plain("wall"))
_CPU = Axis("CPU of the client, s/GiB", _cpu_per_gib)
_READING = Axis("a call, ms", _plain("reading", 1000.0), log=True)
_PROCESSOR = Axis("processor time of a call, ms", _plain("processor", 1000.0))
_AXES = {
    "plain": (_WALL, _CPU),
    "tls": (_WALL, _CPU),
    "capped": (Axis("wall, s", _plain("wall"), log=True), _CPU),
    "busy": (Axis("share of what eight connections carry", _plain("share")),),
    "stalls": (_WALL, Axis("extra bytes sent, MiB", _plain("extra", 1 / _MIB))),
    "resume": (Axis("bytes by the whole command, GB/s", _plain("rate", 1e-9)),),
    "digest": (_WALL, _CPU),
    "growth": (_CPU, Axis("worker: PSS, MiB", _plain("worker_pss", 1 / _MIB))),
    "small": (Axis("ms an object", _plain("each")),),
    "ranges-random": (_READING, _PROCESSOR),
    "ranges-near": (_READING, _PROCESSOR),
    "checkpoint": (Axis("mark a part, us", _plain("mark")), Axis("open, ms", _plain("open"), log=True)),
    "startup": (Axis("whole process, ms", _plain("wall", 1000.0)),),
}


def main() -> None:
    """Draw what there are results of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--plots", type=Path, default=HERE / "plots")
    options = parser.parse_args()
    options.plots.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update(
        {
            "svg.hashsalt": "fastdl",  # else names inside the file are random
            "svg.fonttype": "path",  # text as shapes: the same everywhere
            "font.size": 9,
            **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), _INK),
        }
    )
    records = {name: record for name in _AXES if (record := newest(options.results / f"{name}.jsonl"))}
    for name, record in records.items():
        draw(options.plots / f"{name}.svg", [(record, _AXES[name])])
    if overview := [(records[name], _AXES[name]) for name in _OVERVIEW if name in records]:
        draw(options.plots / "overview.svg", overview)


def newest(path: Path) -> Record | None:
    """Return the last record of a file of results; None without one."""
    lines = path.read_text().splitlines() if path.exists() else []
    record: Record | None = json.loads(lines[-1]) if lines else None
    return record


def draw(path: Path, rows: list[tuple[Record, tuple[Axis, ...]]]) -> None:
    """Draw one row of charts a record, one chart an axis."""
    heights = [len(_ranked(record)) * _ROW + _MARGIN for record, _ in rows]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    figure.patch.set_alpha(0)
    FigureCanvasSVG(figure)
    columns = max(len(axes) for _, axes in rows)
    charts = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for line, (record, axes) in zip(charts, rows, strict=True):
        tools = _ranked(record)
        for number, (chart, axis) in enumerate(zip(line, axes, strict=False)):
            _strip(chart, tools, axis, named=number == 0)
        line[0].set_title(f"{record['scenario']}, {_shown(record)}", loc="left", color=_INK)
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _ranked(record: Record) -> list[tuple[str, Record]]:
    """Return the contenders, the fastest first; in scenarios of fastdl alone in their own order."""
    tools = [(name, tool) for name, tool in record["tools"].items() if tool["samples"]]
    if record["scenario"] in (*_OVERVIEW, "busy", "stalls"):
        tools.sort(key=lambda item: statistics.median(sample["wall"] for sample in item[1]["samples"]))
    return tools


def _strip(chart: Any, tools: list[tuple[str, Record]], axis: Axis, *, named: bool) -> None:
    """Draw one chart: a bar to the median, every sample a point."""
    for row, (name, tool) in enumerate(tools):
        values = [value for sample in tool["samples"] if (value := axis.of(tool["size"], sample)) is not None]
        if not values:
            continue
        colour = _FLOOR if name == "floor" else _OURS if name.startswith("fastdl") else _OTHERS
        median = statistics.median(values)
        chart.barh(row, median, height=0.7, color=colour, alpha=0.35)
        chart.plot([median, median], [row - 0.35, row + 0.35], color=colour, linewidth=2)
        chart.plot(values, [row] * len(values), "o", color=colour, markersize=3.5, markeredgewidth=0)
    chart.set_yticks(range(len(tools)), [name for name, _ in tools] if named else [""] * len(tools))
    for label in chart.get_yticklabels():
        if label.get_text().startswith("fastdl"):
            label.set(color=_OURS, fontweight="bold")
    chart.set_ylim(len(tools) - 0.4, -0.6)
    chart.set_xlabel(axis.label)
    chart.set_facecolor("none")
    if axis.log:
        chart.set_xscale("log")
        chart.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        chart.xaxis.set_major_formatter("{x:g}")
        chart.xaxis.set_minor_formatter("")
    else:
        chart.set_xlim(left=0)
    chart.grid(visible=True, axis="x", color=_INK, alpha=0.25, linewidth=0.6)
    for side in ("top", "right", "left"):
        chart.spines[side].set_visible(False)
    chart.tick_params(axis="y", length=0)


def _shown(record: Record) -> str:
    size, host = record["size"], record["host"]
    amount = f"{size / _GIB:g} GiB, " if size >= _GIB else f"{size / _MIB:g} MiB, " if size else ""
    return f"{amount}{host['cpus']} processors, Linux {host['kernel'].partition('-')[0]}"


if __name__ == "__main__":
    main()
