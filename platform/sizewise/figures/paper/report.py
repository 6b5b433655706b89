"""A study as one HTML file that needs nothing else: no network, no server, under 6 MB.

    write(load(Path("runs"), "quickstart"), Path("quickstart.html"))

Its first page has the answer in a sentence, a figure, five options and what to be careful with; an appendix the
dashboard's figures of the trade-off and of the search, the Pareto front, the trials with their test scores, and the
study's configuration. Printed, figures are vector graphics and tables are complete.
Everything that comes from the study is escaped, and
bounded: a study of any size, or a damaged one, makes no larger report.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import polars as pl
from plotly.offline import get_plotlyjs

from sizewise.figures import CONFIG, accuracy_against_iterations, accuracy_against_size, tradeoff_3d
from sizewise.figures.paper import page_one
from sizewise.figures.searches import by_setting
from sizewise.figures.searches import searching as search
from sizewise.metrics.registry import METRICS, columns_of_test, of_column
from sizewise.results import Answer, Study, answer, hypervolume
from sizewise.results.columns.kept_errors import ERRORS
from sizewise.results.commands import problems as problems_command
from sizewise.results.decision.baseline import Baseline
from sizewise.results.decision.intervals import with_best
from sizewise.results.quality.searching import searched
from sizewise.store.study_folder import StudyFolder
from sizewise_core.errors import InputError
from sizewise_core.files.atomic import write_atomic
from sizewise_core.stores.storage import read
from sizewise_core.units import format_bytes, format_count, format_ratio

MOST_ROWS = 200  # of a table; the figures show the rest, and `sizewise results` exports everything
MOST_COLUMNS = 40  # settings in the table of trials
MOST_LETTERS = 200  # of a text from a record
MOST_PROBLEMS = 50  # lines
MOST_CONFIGURATION = 100_000  # characters of the study file

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #202124; max-width: 1160px }
body { margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } .quiet { color: #5f6368 }
.answer { font-size: 1.3rem; border-left: 4px solid #31688e; padding: .4rem 1rem; margin: 1.2rem 0 }
.scroll { overflow-x: auto; max-height: 30rem; overflow-y: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e0e3e7; white-space: nowrap }
th { position: sticky; top: 0; background: #fff }
pre { background: #f6f7f9; padding: 1rem; overflow-x: auto }
figure.static { margin: 1rem 0 } figure.static svg { width: 100%; max-width: 52rem; height: auto }
.print { display: none } .caveats { font-size: .9rem }
@media print {
  @page { margin: 14mm }
  body { margin: 0; padding: 0; max-width: none; font-size: 9.5pt; color: #000 }
  .answer { font-size: 11pt; line-height: 1.35; margin: 3mm 0 }
  .quiet, .caveats { font-size: 8.5pt; line-height: 1.3 } .quiet { break-after: avoid }
  .page-one ul, .page-one p { margin: 2mm 0 }
  .appendix { break-before: page } h2 { break-after: avoid }
  .screen { display: none } .print { display: block }
  figure.static { break-inside: avoid } figure.static svg { max-width: 15cm }
  .page-one figure.static { margin: 0 } .page-one figure.static svg { max-width: 11.7cm }
  .page-one .scroll, .caveats li { break-inside: avoid }
  .js-plotly-plot { break-inside: avoid }
  .scroll { overflow: visible; max-height: none }
  table { font-size: 7pt; width: 100% } thead { display: table-header-group } tr { break-inside: avoid }
  th, td { padding: 1pt 3pt; white-space: normal; overflow-wrap: anywhere } th { position: static }
  .page-one th, .page-one td { overflow-wrap: normal }
  pre { white-space: pre-wrap; overflow: visible }
}
"""
# Plotly's figures are as wide as the window; on paper they are as wide as the paper, and back again.
_PRINTED = """
const plots = () => document.querySelectorAll('.appendix > .js-plotly-plot, .appendix > div > .js-plotly-plot');
addEventListener('beforeprint', () => plots().forEach(p => Plotly.relayout(p, {width: 660, autosize: false})));
addEventListener('afterprint', () => plots().forEach(p => Plotly.relayout(p, {width: null, autosize: true})));
"""


def write(study: Study, out: Path, today: Baseline | None = None) -> None:
    """Write the report of a study to a file, completely or not at all.

    Args:
        study: whose report it is.
        out: the file.
        today: what runs today, with which the options are compared.

    Raises:
        InputError: it cannot be written.
    """
    page = _page(study, today)
    try:
        write_atomic(out, page.encode())
    except OSError as error:
        raise InputError(
            f"{out}: the report cannot be written ({error.strerror}); name a file in a folder that exists "
            "and that you may write to"
        ) from error


def _bounded(study: Study) -> Study:
    """The study with long texts in its tables cut short."""

    def cut(frame: pl.DataFrame) -> pl.DataFrame:
        text = [name for name, kind in frame.schema.items() if kind == pl.String]
        return frame.with_columns(pl.col(name).str.head(MOST_LETTERS) for name in text)

    return dataclasses.replace(
        study,
        trials=cut(study.trials),
        evaluations=cut(study.evaluations),
        config_columns=[name for name in study.config_columns if len(name) <= MOST_LETTERS][:MOST_COLUMNS],
        problems=[_short(problem) for problem in study.problems[:MOST_PROBLEMS]] + _more_problems(study),
    )


def _more_problems(study: Study) -> list[str]:
    """A line about the problems that are left out."""
    more = len(study.problems) - MOST_PROBLEMS
    return [f"{more:,} more; all: {problems_command(study)}"] if more > 0 else []


def _short(text: str, most: int = MOST_LETTERS) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _page(study: Study, today: Baseline | None = None) -> str:
    study = _bounded(study)
    found = answer(study)
    name = escape(study.name)
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime())
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in study.problems)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name}: Sizewise report</title>
<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>
<h1>{name}</h1><p class="quiet">Sizewise report, {date}. {escape(_summary(study))}</p>
<p class="answer">{escape(found.sentence)}</p>
{_page_one(study, found, today)}
<section class="appendix"><h2>Figures</h2>
<div class="screen">{_figure(accuracy_against_size(study, today=today), "size")}</div>
<div class="screen">{_figure(accuracy_against_iterations(study, today=today), "iterations")}</div>
<div class="screen">{_figure(tradeoff_3d(study, today=today), "tradeoff")}</div>
<div class="print">{page_one.figure(study, "iterations", today)}{page_one.figure(study, "methods", today)}</div>
<h2>Pareto front</h2><p class="quiet">Evaluations that no other beats in {escape(_objectives(study))}.
Scores are on the validation split.</p>{_table(_front_rows(study))}
<h2>Trials</h2><p class="quiet">Each at its best validation AUC; the test AUC was never used to choose.</p>
{_table(trial_rows(study))}
<h2>Search</h2>{_search(study)}
<h2>Configuration</h2><pre>{escape(_configuration(study))}</pre>
{f"<h2>Problems</h2><ul>{problems}</ul>" if problems else ""}
</section><script>{_PRINTED}</script></body></html>
"""


def _page_one(study: Study, found: Answer, today: Baseline | None) -> str:
    """What is to be decided by: the figure, the options, how to get the answer, and caveats."""
    if found.smallest is None:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in page_one.caveats(study, found, today))
    drawn = page_one.figure(study, "tradeoff", today, width=4.6)
    return f"""<section class="page-one">{drawn}
{_table(page_one.options(study, found, today))}
<p><code>{escape(page_one.command(study, found))}</code></p>
<ul class="caveats">{lines}</ul></section>"""


def _summary(study: Study) -> str:
    data, trials = study.record.data, study.trials
    finished = trials.filter(pl.col("state").is_in(["finished", "pruned"])).height
    parts = [f"{finished} of {study.record.trials or trials.height} trials finished, study {study.state}."]
    if data.full_bytes:
        parts.append(f"Full embedding tables would weigh {format_bytes(data.full_bytes)}.")
    if data.rows.train:
        parts.append(f"Trained on {format_count(data.rows.train)} rows.")
    volume = hypervolume(study)
    if volume.value:
        corner = ", ".join(
            f"{format_bytes(at) if name.endswith('bytes') else f'{at:g}'} {name}"
            for name, at in volume.reference.items()
        )
        parts.append(f"Hypervolume {volume.value:.4g} ({volume.unit}; reference point {corner}).")
    return " ".join(parts)


def _objectives(study: Study) -> str:
    return ", ".join(f"{name} ({way})" for name, way in study.objectives.items())


def _figure(figure: go.Figure, div_id: str) -> str:
    config = dict(CONFIG)  # Plotly removes entries from what it is given
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=div_id, config=config)
    return html


def _search(study: Study) -> str:
    """How the search went, as the dashboard shows it."""
    if study.candidates.is_empty():
        return "<p>Nothing yet.</p>"
    figures = {"hypervolume": search.hypervolume_history(study), "timeline": search.timeline(study)}
    if searched(study):
        figures |= {
            "importance": search.importance(study, "PED-ANOVA"),
            "slices": by_setting.slices(study, next(iter(study.objectives))),
            "parallel": by_setting.parallel_coordinates(study),
        }
    return "\n".join(_figure(figure, name) for name, figure in figures.items())


def _scores(row: Mapping[str, Any], columns: Iterable[str]) -> dict[str, str]:
    """The cells of scores, by their headings."""
    metrics = {column: metric for column in columns if (metric := of_column(column))}
    return {metric.label: _maybe(row[column], metric.text) for column, metric in metrics.items()}


def _intervals(row: Mapping[str, Any]) -> dict[str, str]:
    """The cells of intervals: of each score, of its difference to the best, and the part of seeds where it is known."""
    cells = {}
    for score, error in ERRORS.items():
        label = METRICS[score].label
        low, high = row[f"{score}_low"], row[f"{score}_high"]
        cells[f"{label}, 95 %"] = "" if low is None else f"{low:.4f} to {high:.4f}"
        if row[f"{score}_seed_error"] is not None:
            cells[f"{label}'s error by rows"] = _maybe(row[error], "{:.4f}".format)
            cells[f"{label}'s error by seeds"] = f"{row[f'{score}_seed_error']:.4f}"
        apart, low, high = (row[f"{score}_to_best{end}"] for end in ("", "_low", "_high"))
        cells[f"{label} to the best"] = (
            ""
            if apart is None
            else f"{apart:+.4f}" + (f" ({low:+.4f} to {high:+.4f})" if low is not None else "")
        )
    return cells


def _front_rows(study: Study) -> list[dict[str, str]]:
    return [
        {
            "trial": str(row["trial_id"]),
            **({"stored as": row["stored_as"] or "as trained"} if "stored_as" in row else {}),
            **_scores(row, columns_of_test(listed=True)),
            **_intervals(row),
            "embeddings": _maybe(row["embedding_bytes"], format_bytes),
            "compression": _maybe(row["compression_ratio"], format_ratio),
            "whole model": _maybe(row["model_bytes"], format_bytes),
            "iterations": format_count(row["iteration"]),
            "epochs": _maybe(row["epoch"], "{:.3g}".format),
        }
        for row in with_best(study, study.front).iter_rows(named=True)
    ]


def trial_rows(study: Study) -> list[dict[str, str]]:
    """The cells of the table of trials, by their headings."""
    return [
        {
            "trial": str(row["trial_id"]),
            "state": row["state"],
            **_scores(row, [*columns_of_test(listed=True), *columns_of_test(listed=True).values()]),
            "embeddings": _maybe(row["embedding_bytes"], format_bytes),
            "iterations": _maybe(row["iteration"], format_count),
            **{name: _maybe(row[name], _plain) for name in study.config_columns},
            "error": row["error"] or row["reason"] or row["breaks"] or "",
        }
        for row in study.trials.iter_rows(named=True)
    ]


def _table(rows: list[dict[str, str]]) -> str:
    if not rows:
        return "<p>Nothing yet.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row.values()) + "</tr>"
        for row in rows[:MOST_ROWS]
    )
    more = f"<p>The first {MOST_ROWS} of {len(rows):,} rows.</p>" if len(rows) > MOST_ROWS else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'
    )


def _maybe(value: Any, form: Callable[[Any], str]) -> str:
    return "" if value is None else form(value)


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _configuration(study: Study) -> str:
    try:
        text = read(StudyFolder(study.folder).study_yaml).decode(errors="replace")
    except OSError:
        return "study.yaml is missing"
    return _short(text, MOST_CONFIGURATION)
