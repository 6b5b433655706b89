"""The results of studies: `results`, `report`, `figure`, `dashboard`; and `bound`, those of theory."""

import dataclasses
import sys
import textwrap
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from sizewise.cli.records import takes
from sizewise.cli.shared import Json, Name, Runs, Wide, app, baseline_of, command, front_columns, print_json
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import place


class TableName(StrEnum):
    """The tables of a study."""

    trials = "trials"
    evaluations = "evaluations"
    front = "front"


class TableFormat(StrEnum):
    """How a table is written."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


_OF_TEACHERS = ("teacher_iterations", "teacher_seconds")


def trial_columns() -> list[str]:
    """The columns of a table of trials."""
    from sizewise.metrics.registry import columns_of_test

    own = ["epochs", *columns_of_test(listed=True).values(), "breaks", "cpu_seconds", "gpu_seconds", "money"]
    return ["trial_id", "role", "state", "replicate", *front_columns()[1:], *own, *_OF_TEACHERS]


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """The options of `results`."""

    name: Name
    runs: Runs = "runs"
    table: Annotated[TableName, typer.Option(help="Which table.")] = TableName.trials
    format_: Annotated[
        TableFormat | None,
        typer.Option("--format", help="How it is written; when left out, as --out ends, or as a table."),
    ] = None
    out: Annotated[
        Path | None, typer.Option(help="Write to this file: FILE.csv, FILE.json or FILE.parquet.")
    ] = None
    wide: Wide = False
    problems: Annotated[
        bool, typer.Option("--problems", help="Print everything that could not be read, a line each.")
    ] = False
    as_json: Json = False


@app.command("results")
@takes(TableOptions)
def results_(asked: TableOptions) -> None:
    """Print or write the tables of a study.

    Its trials, their evaluations, or the Pareto front over the evaluations.
    """
    from sizewise import results
    from sizewise.cli.output.terminal import print_problems
    from sizewise.results.decision.baseline import described, of_study, with_baseline
    from sizewise.results.decision.intervals import with_best
    from sizewise_core.printable import printable

    name, table = asked.name, asked.table.value
    as_file = _file_format(asked.format_, asked.out, asked.as_json)  # before anything is read
    study = results.load(place(asked.runs), name)
    if asked.problems:
        if asked.as_json:
            print_json({"name": name, "problems": study.problems})
        else:
            print("\n".join(map(printable, study.problems)) or f"{name}: everything can be read")
        return
    print_problems(study.problems, command("results", name, asked.runs, "--problems"))
    today = of_study(study)
    frame = with_best(study, study.front) if asked.table is TableName.front else getattr(study, table)
    frame = with_baseline(study, frame, today)
    about = {"problems": study.problems, **({"baseline": described(today)} if today else {})}
    if asked.out is not None:
        _write_table(frame, as_file, asked.out)
        if asked.as_json:
            written = {"name": name, "table": table, "out": str(asked.out), "written": frame.height}
            print_json({**written, **about})
    elif asked.as_json:
        rows = {"name": name, "table": table, "rows": frame.to_dicts()}
        print_json({**rows, **about})
    elif as_file is not TableFormat.table:
        print(frame.write_json() if as_file is TableFormat.json else frame.write_csv())
    else:
        _print_table(frame, study, asked)


def _print_table(frame: Any, study: Any, asked: TableOptions) -> None:
    """The table on a terminal: its usual columns, or with `--wide` those of the configuration too."""
    from sizewise.cli.output.tables import print_table
    from sizewise.results.decision.baseline import COLUMNS
    from sizewise.results.decision.intervals import TO_BEST

    columns = trial_columns() if asked.table is TableName.trials else [*front_columns(), *TO_BEST[:3]]
    columns += COLUMNS[:3]
    if asked.wide:
        columns = list(dict.fromkeys([*columns, *study.config_columns]))
    table = asked.table.value
    every_row = command("results", asked.name, asked.runs, "--table", table, "--format", "csv")
    print_table(frame, columns, f"{table} of {asked.name}", wide=asked.wide, every_row=every_row)


def _file_format(given: TableFormat | None, out: Path | None, as_json: bool) -> TableFormat:
    """The format that `--format`, `--out` and `--json` mean together. Raises InputError where they contradict."""
    if out is None:
        if given is TableFormat.parquet:
            raise InputError("--format parquet is not for a terminal: add --out FILE.parquet")
        if as_json and given not in (None, TableFormat.json):
            raise InputError(f"--json and --format {given.value}: give one of them")
        return given or TableFormat.table
    endings = {f".{known.value}": known for known in TableFormat if known is not TableFormat.table}
    named = endings.get(out.suffix.lower())
    if given is TableFormat.table or (given is None and named is None):
        what = "--format table is for a terminal" if given else "no format goes by this ending"
        raise InputError(f"{out}: {what}: end --out in {', '.join(endings)}, or give --format")
    if given is not None and named not in (None, given):
        raise InputError(
            f"{out}: ends as no {given.value} file does: leave --format out, or end it in .{given.value}"
        )
    return given or named  # type: ignore[return-value]  # one of them is there


def _write_table(frame: Any, format_: TableFormat, out: Path) -> None:
    """Write a table to a file, completely or not at all."""
    from sizewise_core.files.atomic import atomic_file

    write = {"json": frame.write_json, "csv": frame.write_csv, "parquet": frame.write_parquet}[format_.value]
    try:
        with atomic_file(out) as stream:
            write(stream)
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror or error}): choose another --out"
        ) from None


@app.command()
def report(
    name: Name,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    runs: Runs = "runs",
    baseline: Annotated[
        str | None,
        typer.Option(
            help="What runs today, as `choose` takes it: compare the options on page one with it.",
            metavar="FIGURES|PATH",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a study's answer, front and figures as one HTML file."""
    from sizewise import results
    from sizewise.cli.output.terminal import print_problems
    from sizewise.figures.paper import report as reports

    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{out}: the report is one HTML file: end --out in .html")
    study = results.load(place(runs), name)
    print_problems(study.problems, command("results", name, runs, "--problems"))
    today = baseline_of(baseline, study, runs)
    reports.write(study, out, today)
    if as_json:
        print_json({"out": str(out), "bytes": out.stat().st_size, "problems": study.problems})
    else:
        print(f"{out}: written; open it in any browser")


class FigureKind(StrEnum):
    """The figures for paper."""

    tradeoff = "tradeoff"
    iterations = "iterations"
    methods = "methods"


@app.command()
def figure(
    name: Name,
    kind: Annotated[
        FigureKind, typer.Option(help="AUC against size, against iterations, or a line a method.")
    ],
    out: Annotated[
        Path, typer.Option(help="The file: FILE.pdf, .svg, .eps or .png; a .csv and a .txt go beside it.")
    ],
    width: Annotated[str, typer.Option(help="Its width, such as 3.3in or 8.4cm.")] = "3.3in",
    runs: Runs = "runs",
    as_json: Json = False,
) -> None:
    """Draw a figure for print.

    Vector graphics with embedded fonts; the data and a caption are written beside it.
    """
    from sizewise import results
    from sizewise.cli.output.terminal import print_problems, say
    from sizewise.figures.paper import paper

    inches = _inches(width)
    study = results.load(place(runs), name)
    print_problems(study.problems, command("results", name, runs, "--problems"))
    drawn = paper.write(study, kind.value, out, inches)
    if as_json:
        written = {"out": str(out), "data": str(out.with_suffix(".csv")), "caption": drawn.caption}
        print_json({**written, "problems": study.problems})
    else:
        say(f"{out}: written, its data and caption beside it in .csv and .txt")
        say(drawn.caption)


def _inches(text: str) -> float:
    """A width in inches."""
    for unit, inches in (("in", 1.0), ("cm", 1 / 2.54), ("mm", 1 / 25.4), ("pt", 1 / 72), ("", 1.0)):
        if text.endswith(unit):
            try:
                return float(text.removesuffix(unit)) * inches
            except ValueError:
                break
    raise InputError(f"--width: {text!r} is no width: give one such as 3.3in, 8.4cm or 240pt")


@app.command()
def dashboard(
    runs: Runs = "runs",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8501,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    base_path: Annotated[
        str, typer.Option(help="Path below which a proxy serves it, such as /sizewise.", metavar="PATH")
    ] = "",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Stars, tags and notes can be read, and not be changed.")
    ] = False,
) -> None:
    """Open the Streamlit app over a folder of studies."""
    if "://" not in runs and not Path(runs).exists():
        print(f"sizewise: {runs}: no such folder yet; studies are shown once there are some", file=sys.stderr)
    # By its entry point, because this package must not import the dashboard, which is built on it.
    (serve,) = entry_points(group="sizewise.commands", name="dashboard")
    raise typer.Exit(serve.load()(place(runs), port, address, base_path, read_only))


@app.command()
def bound(
    data: Annotated[
        str | None, typer.Argument(metavar="DIR", help="A folder of shards, for its number of values.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Values of all features, instead of DIR.", min=2)] = None,
    dim: Annotated[int, typer.Option(help="Length of an embedding vector.", min=1)] = 16,
    eps: Annotated[float, typer.Option(help="Relative error of squared distances, between 0 and 1.")] = 0.1,
    memory_budget: Annotated[
        str | None,
        typer.Option(help="Size of the shared pool that hash and robe are judged at; else the bound's."),
    ] = None,
    skew: Annotated[
        float,
        typer.Option(help="With --rows: ids are read as often as rank^-SKEW; DIR has its own counts."),
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Print how much memory theory calls enough.

    For a dense projection of all values, and what `hash` and `robe` make of as much.
    """
    from sizewise.theory import bounds, pool_report
    from sizewise_core.units import format_bytes, format_count, format_ratio, parse_bytes
    from sizewise_prep.shards.manifest import Manifest

    if (data is None) == (rows is None):
        raise InputError("bound: give a folder of shards, or --rows N")
    found = bounds.memory_bound(rows if data is None else Manifest.load(data).full_rows, dim, eps)  # type: ignore[arg-type]
    try:
        least = pool_report.LEAST_VECTORS * dim * bounds.FLOAT_BYTES
        usual = max(min(found.bytes, found.full_bytes), least)
        budget = usual if memory_budget is None else parse_bytes(memory_budget)
    except ValueError as error:
        raise InputError(f"--memory-budget: {error}") from None
    shared = pool_report.shared_pool(budget, found.rows, dim, data, skew)
    if as_json:
        print_json({**found._asdict(), "holds_for": bounds.HOLDS_FOR, "shared_pool": shared.as_json()})
    else:
        print(
            f"{format_count(found.dimensions)} dimensions x {dim}: {format_bytes(found.bytes)} instead of "
            f"{format_bytes(found.full_bytes)} ({format_ratio(found.ratio)})\n{found.statement}\n{found.source}\n\n"
            f"{textwrap.fill(bounds.NOT_FOR_HASHES, width=80)}\n\n{shared.text()}"
        )
