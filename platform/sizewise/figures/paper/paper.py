"""Figures for paper and print: vector graphics with embedded fonts, the data beside them, and a caption.

    write(load(Path("runs"), "mine"), "tradeoff", Path("fig.pdf"), width=3.3)    # also fig.csv and fig.txt

No title: the caption has what one would say. Shapes differ as well as colours, and colours in lightness, so that they
read in grey too. Drawn by Matplotlib, which needs no browser (`pip install 'sizewise[paper]'`); Plotly's own export
to PDF starts a Chromium.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from sizewise.figures.elements import style
from sizewise.figures.elements.axes import SIZES, Axes
from sizewise.figures.tradeoffs.decision import best_points, envelope
from sizewise.results import Study, answer
from sizewise.results.decision.baseline import Baseline, of_study
from sizewise.results.decision.intervals import point
from sizewise_core.errors import InputError
from sizewise_core.files.atomic import write_atomic
from sizewise_core.units import format_bytes, format_count

Kind = Literal["tradeoff", "iterations", "methods"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ENDINGS = (".pdf", ".svg", ".eps", ".png")
# Neighbours, and above all the first three, differ in lightness, and so in grey; with the shapes of `_MARKERS`.
_COLORS = ["#12263f", "#b0450f", "#3aa394", "#6b3f87", "#c9952a", "#7d8790"]
_MARKERS = ["o", "s", "^", "D", "v", "P"]
_MOST_POINTS = 200  # of a method, or of a curve; the data beside the figure has all
_MOST_LETTERS = 24  # of a method's name
_MOST_CURVES = 6  # of iterations; more are hard to distinguish


@dataclass(frozen=True)
class PaperFigure:
    """A drawn figure: its file's bytes, the data that it shows, and its caption."""

    content: bytes
    data: pl.DataFrame
    caption: str


def write(study: Study, kind: Kind, out: Path, width: float = 3.3) -> PaperFigure:
    """Draw a figure into a file, with its data in a .csv and its caption in a .txt of the same name.

    Args:
        study: what it shows.
        kind: AUC against size, against iterations, or a line of the best AUC at each size for every method.
        out: the file, in the format of its ending.
        width: in inches; the height follows.

    Raises:
        InputError: another ending, an impossible width, nothing to draw, no Matplotlib, or the files cannot be written.
    """
    if out.suffix.lower() not in ENDINGS:
        raise InputError(
            f"{out}: figures are written as the name ends, in {', '.join(ENDINGS)}: give --out such a name"
        )
    if not 1 <= width <= 30:
        raise InputError(f"--width: a figure is 1 to 30 inches wide, not {width:g}")
    figure = drawn(study, kind, out.suffix.lower()[1:], width, of_study(study))
    files = {
        out: figure.content,
        out.with_suffix(".csv"): figure.data.write_csv().encode(),
        out.with_suffix(".txt"): f"{figure.caption}\n".encode(),
    }
    try:
        for path, content in files.items():
            write_atomic(path, content)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    return figure


def drawn(
    study: Study,
    kind: Kind,
    file_format: str = "pdf",
    width: float = 3.3,
    today: Baseline | None = None,
) -> PaperFigure:
    """A figure in memory.

    Args:
        study, kind, width: as `write` takes them.
        file_format: pdf, svg, eps or png.
        today: what runs today, drawn as a line of its AUC and, against size, of its size.

    Raises:
        InputError: nothing to draw, or no Matplotlib.
    """
    if study.candidates.is_empty():
        raise InputError(f"study {study.name}: {answer(study).sentence} There is nothing to draw.")
    data = _DATA[kind](study)
    with _canvas(width) as (figure, axes):
        _DRAWN[kind](axes, study, data)
        if today is not None:
            _crosshair(axes, today, by_size=kind != "iterations")
        # Above the axes, where it hides no point.
        names = axes.get_legend_handles_labels()[1]
        beside = int(72 * width / (4.2 * max(map(len, names)) + 28))  # by the width of letters, in points
        figure.legend(loc="outside upper center", ncols=min(max(beside, 1), len(names)), frameon=False)
        axes.set_ylabel("AUC (validation)")
        axes.grid(True, linewidth=0.3, color="#d0d4d8")
        axes.spines[["top", "right"]].set_visible(False)
        stream = io.BytesIO()
        # Without a date, so that the same study gives the same file.
        stamp = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(file_format)
        figure.savefig(stream, format=file_format, metadata=stamp, dpi=300)
    return PaperFigure(stream.getvalue(), data, caption(study, kind, data, today))


def _crosshair(axes: Any, today: Baseline, by_size: bool) -> None:
    """Lines through what runs today."""
    look: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (4, 2)), "zorder": 2}
    name = today.name if len(today.name) <= _MOST_LETTERS else f"{today.name[:_MOST_LETTERS]}..."
    axes.axhline(today.auc, **look, label=name)
    if by_size and today.bytes:
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, today.bytes / 1.3), max(high, today.bytes * 1.3))
        axes.axvline(today.bytes, **look)


@contextmanager
def _canvas(width: float) -> Iterator[tuple[Any, Any]]:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InputError("figures for paper need Matplotlib: pip install 'sizewise[paper]'") from None
    settings = {
        "pdf.fonttype": 42,  # TrueType, embedded; many journals refuse Type 3
        "ps.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "sizewise",  # else the same figure has other names each time
        "text.parse_math": False,  # a name is a name, whatever it has for dollars
        "font.size": 8,
        "legend.fontsize": 7,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.0,
    }
    with rc_context(settings):
        figure = Figure(figsize=(width, 0.72 * width), layout="constrained")
        yield figure, figure.add_subplot()


def _kinds(points: pl.DataFrame) -> pl.DataFrame:
    """The points with `kind`, their method; those beyond as many as there are shapes are "other"."""
    if "method" not in points.columns:
        return points.with_columns(kind=pl.lit("trials"))
    named = points.with_columns(kind=pl.col("method").cast(pl.String).fill_null("?").str.head(_MOST_LETTERS))
    usual = named["kind"].value_counts().sort("count", "kind", descending=[True, False])["kind"]
    most = usual.head(len(_MARKERS) - 1 if len(usual) > len(_MARKERS) else len(_MARKERS)).to_list()
    known = pl.col("kind").is_in(most)
    return named.with_columns(kind=pl.when(known).then("kind").otherwise(pl.lit("other")))


_IDENTITY = ["trial_id", "stored_as", "kind", "iteration", "auc", "auc_low", "auc_high", "replicates"]


def _best(study: Study) -> pl.DataFrame:
    """Each trial at its best evaluation, with its interval; and the answer, where that is another evaluation."""
    points = best_points(study, Axes().of(study))
    chosen = _answer(study)
    same = ["trial_id", "iteration", *(name for name in ("stored_as",) if name in points.columns)]
    others = points.join(chosen, on=same, how="anti", nulls_equal=True)
    both = pl.concat(
        [others.with_columns(answer=False), chosen.select(points.columns).with_columns(answer=True)]
    )
    points = _kinds(both.sort(study.size, "trial_id", "iteration"))
    return points.select(*(name for name in _IDENTITY if name in points.columns), study.size, "answer")


def _answer(study: Study) -> pl.DataFrame:
    """The candidate that is the study's answer, a table of one row."""
    one = answer(study).smallest
    assert one is not None  # there are candidates
    return point(study, one.trial_id, one.iteration, one.stored_as)


def _curves(study: Study) -> pl.DataFrame:
    """All evaluations of a few trials: the best of each of as many parts of the sizes, and the answer's in its part."""
    best = best_points(study, Axes().of(study))
    if "stored_as" in best.columns:
        best = best.filter(pl.col("stored_as").is_null())
    part = (pl.int_range(pl.len()) * _MOST_CURVES // pl.len()).alias("_part")
    is_answer = pl.col("trial_id").is_in(_answer(study)["trial_id"].implode()).alias("_answer")
    ranked = best.sort(study.size).with_columns(part, is_answer)
    picked = ranked.sort("_answer", "auc", descending=True).unique("_part", keep="first")
    points = _kinds(study.candidates.join(picked.select("trial_id"), on="trial_id", how="semi"))
    if "stored_as" in points.columns:
        points = points.filter(pl.col("stored_as").is_null())
    return points.select(*(n for n in _IDENTITY if n in points.columns), study.size).sort(
        study.size, "iteration"
    )


def _tradeoff(axes: Any, study: Study, data: pl.DataFrame) -> None:
    line = envelope(data, study.size)
    axes.step(line[study.size], line["auc"], where="post", color="#6b7075", linewidth=0.8, zorder=1)
    for number, ((name,), rows) in enumerate(data.sort("kind").group_by("kind", maintain_order=True)):
        rows = style.thinned(rows, _MOST_POINTS)
        x, y = rows[study.size], rows["auc"]
        bars = [(y - rows["auc_low"]).fill_null(0.0), (rows["auc_high"] - y).fill_null(0.0)]
        axes.errorbar(
            x, y, yerr=bars, fmt=_MARKERS[number % 6], color=_COLORS[number % 6], **_SMALL, label=str(name)
        )
    chosen = data.filter("answer")
    axes.plot(
        chosen[study.size],
        chosen["auc"],
        "o",
        mfc="none",
        mec="black",
        ms=8,
        mew=1.0,
        zorder=5,
        label="answer",
    )
    _by_size(axes, study, data)


_SMALL: dict[str, Any] = {
    "markersize": 3.2,
    "elinewidth": 0.5,
    "capsize": 1.5,
    "capthick": 0.5,
    "linestyle": "none",
}


def _methods(axes: Any, study: Study, data: pl.DataFrame) -> None:
    for number, ((name,), rows) in enumerate(data.sort("kind").group_by("kind", maintain_order=True)):
        line = envelope(rows, study.size)
        look = {"color": _COLORS[number % 6], "marker": _MARKERS[number % 6], "markersize": 3.2}
        axes.plot(line[study.size], line["auc"], drawstyle="steps-post", label=str(name), **look)
    _by_size(axes, study, data)


def _iterations(axes: Any, study: Study, data: pl.DataFrame) -> None:
    for number, (_, rows) in enumerate(data.group_by("trial_id", maintain_order=True)):
        look = {"marker": _MARKERS[number % 6], "markersize": 2.4, "color": _COLORS[number % 6]}
        rows = style.thinned(rows, _MOST_POINTS)
        axes.plot(rows["iteration"], rows["auc"], label=format_bytes(rows[study.size][0]), **look)
    axes.set_xscale("log")
    low, high = min(data["iteration"].to_list()), max(data["iteration"].to_list())
    axes.set_xlim(low / 1.1, high * 1.1)
    axes.set_xticks([tick for tick in style.ticks([low, high]) if low / 1.1 <= tick <= high * 1.1])
    axes.xaxis.set_major_formatter(lambda value, _: format_count(round(value)))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel("Iterations")


def _by_size(axes: Any, study: Study, data: pl.DataFrame) -> None:
    axes.set_xscale("log")
    at = style.ticks(data[study.size].to_list())
    low, high = data[study.size].min(), data[study.size].max()
    axes.set_xlim(low / 1.3, high * 1.3)  # type: ignore[operator]
    axes.set_xticks([tick for tick in at if low / 1.3 <= tick <= high * 1.3])  # type: ignore[operator]
    axes.xaxis.set_major_formatter(lambda value, _: format_bytes(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel(
        SIZES[study.size].heading + " size" if not SIZES[study.size].heading.endswith("size") else "Size"
    )


_DATA: dict[Kind, Callable[[Study], pl.DataFrame]] = {
    "tradeoff": _best,
    "iterations": _curves,
    "methods": _best,
}
_DRAWN: dict[Kind, Callable[[Any, Study, pl.DataFrame], None]] = {
    "tradeoff": _tradeoff,
    "iterations": _iterations,
    "methods": _methods,
}


def caption(study: Study, kind: Kind, data: pl.DataFrame, today: Baseline | None = None) -> str:
    """What the figure shows, of how many trials, rows and seeds, and what its intervals are.

    Args:
        study: what is drawn.
        kind: of the figure.
        data: that it shows.
        today: what runs today, where it is drawn.
    """
    shows = {
        "tradeoff": "AUC against size, a point a trial at its best evaluation; the line is the best AUC at each size "
        "or below, the ring the smallest model that loses at most 0.002 AUC by the estimate",
        "iterations": "AUC against iterations, a line a model, named by its size",
        "methods": "The best AUC at each size or below, a line a method",
    }[kind]
    rows = study.record.data.rows.validation
    on = f" on {rows:,} validation rows" if rows else ""
    seeds = max(data["replicates"].to_list(), default=1) if "replicates" in data.columns else 1
    of_seeds = f"means over up to {seeds} seeds" if seeds > 1 else "one seed each"
    bars = ""
    if kind == "tradeoff" and data["auc_low"].is_not_null().any():
        also = " and seeds" if seeds > 1 else ""
        bars = f" Bars are 95 % intervals over validation rows{also}; most of their errors are common to all points."
    trials = data["trial_id"].n_unique()
    line = f" The broken line is {today.text}, what runs today." if today is not None else ""
    return f"{shows}. {trials:,} trials of study {study.name}{on}, {of_seeds}.{bars}{line}"
