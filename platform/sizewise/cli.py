"""The commands. Thin: each checks its arguments, calls one function of another room, and prints.

Progress goes to standard error, results to standard output; with `--json` exactly one JSON object.
Exit codes: 0 success, 1 a failure that is ours or the machine's, 2 bad input, 130 interrupted (SIGINT, Ctrl+C),
143 terminated (SIGTERM).
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

import sizewise
from sizewise.study import signals
from sizewise_prep.errors import InputError
from sizewise_prep.storage import Place, StorageError, place

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How small can a recommendation model be, and what does each size cost in accuracy and iterations?",
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")
]
Runs = Annotated[
    str, typer.Option("--runs", help="The folder of studies: a path, or a URI such as s3://bucket/runs.")
]
OptunaStorage = Annotated[
    str | None,
    typer.Option(
        "--optuna-storage",
        metavar="URL",
        envvar="SIZEWISE_OPTUNA_STORAGE",  # where a password does not show in the list of processes
        help="Mirror the study there, for optuna-dashboard: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DB.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="The Ray cluster: HOST:PORT, auto (the one on this machine), or local (one for this study alone). When "
        "left out: RAY_ADDRESS, else the one on this machine if there is one, else local.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.")]


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


class TokenTreatment(StrEnum):
    """What the ids of shards are."""

    raw = "raw"
    contiguous = "contiguous"
    mlperf = "mlperf"


FRONT = [
    "trial_id",
    "auc",
    "auc_low",
    "auc_high",
    "replicates",
    "embedding_bytes",
    "compression_ratio",
    "model_bytes",
    "iteration",
    "epoch",
    "method",
    "learning_rate",
]
TRIALS = ["trial_id", "state", "replicate", *FRONT[1:], "epochs", "test_auc", "breaks"]
TRIALS += ["cpu_seconds", "gpu_seconds", "money"]


def main() -> None:
    """The `sizewise` command."""
    try:
        app(prog_name="sizewise")
    except InputError as error:
        print(f"sizewise: {error}", file=sys.stderr)
        sys.exit(2)
    except StorageError as error:
        print(f"sizewise: {error}", file=sys.stderr)
        sys.exit(2 if error.mendable else 1)
    except KeyboardInterrupt:
        sys.exit(signals.exit_code())


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"sizewise {sizewise.__version__}")
        raise typer.Exit


@app.command()
def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the raw logs.")],
    rows: Annotated[int, typer.Option(help="Rows in all.", min=1)],
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.", min=0)] = 1,
    files: Annotated[int, typer.Option(help="Day files to spread the rows over.", min=1)] = 1,
    gzip: Annotated[bool, typer.Option("--gzip", help="Compress the files.")] = False,
    as_json: Json = False,
) -> None:
    """Write click logs with planted truth in Criteo's raw layout."""
    from sizewise.terminal import rows_written
    from sizewise_prep import planted

    with rows_written(rows, as_json) as progress:
        truth = planted.generate(out, rows, seed=seed, files=files, compress=gzip, progress=progress)
    if as_json:
        _print_json(
            {
                "out": str(out),
                "rows": rows,
                "bayes_auc": truth.bayes_auc,
                "bayes_logloss": truth.bayes_logloss,
            }
        )
    else:
        print(f"{out}: {rows:,} rows; the best possible AUC on them is {truth.bayes_auc:.4f}")


@app.command()
def prep(
    raw: Annotated[
        list[str] | None, typer.Argument(metavar="RAW...", help="Raw logs, in time order.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the shards.")] = None,
    max_bad_fraction: Annotated[
        float,
        typer.Option(help="Set bad rows aside up to this fraction; 0 stops at the first.", min=0, max=1),
    ] = 0.0,
    shard_rows: Annotated[int, typer.Option(help="Rows a shard.", min=1)] = 1_000_000,
    split: Annotated[
        str,
        typer.Option(
            help="Where the log is cut in time: fractions for training, validation and test; or rows:A,B, "
            "files:A,B (the rest tests); or mlperf (the last file halved)."
        ),
    ] = "0.8,0.1,0.1",
    tokens: Annotated[
        TokenTreatment,
        typer.Option(
            help="Raw 32-bit tokens; ids from 0 on (which `full` needs); or MLPerf's ids modulo 40,000,000 and "
            "logarithms of integers."
        ),
    ] = TokenTreatment.raw,
    min_count: Annotated[
        int, typer.Option(help="With contiguous ids: rarer tokens share id 0 with missing ones.", min=1)
    ] = 1,
    shuffle: Annotated[
        int | None, typer.Option(metavar="SEED", help="Shuffle rows within each shard by this seed.", min=0)
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="YAML", help="The columns of logs in another layout than Criteo's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Local processes; one for each core when left out.", min=1)
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="At most this much for all local workers, or for each task on Ray, such as 2GB."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="RAY_ADDRESS",
            help="Work on this Ray cluster (auto: one on this machine).",
        ),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Check a folder of shards against its manifest instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn raw click logs into training shards, or check the shards of a folder."""
    from sizewise.terminal import preparing
    from sizewise.units import parse_bytes
    from sizewise_prep import manifest as manifests
    from sizewise_prep import prep as preparation
    from sizewise_prep.layout import Layout

    if verify is not None:
        damaged = manifests.verify(verify)
        if as_json:
            _print_json({"folder": str(verify), "damaged": damaged})
        else:
            print("\n".join(damaged) or f"{verify}: every shard is as its manifest says")
        if damaged:
            raise typer.Exit(1)
        return
    if not raw or out is None:
        raise InputError("prep: give raw logs and --out DIR, or --verify DIR")
    options = preparation.Options(
        split=split,
        shard_rows=shard_rows,
        max_bad_fraction=max_bad_fraction,
        tokens=tokens.value,
        min_count=min_count,
        shuffle=shuffle,
        layout=Layout.load(schema) if schema else None,
    )
    try:
        limit = None if memory is None else parse_bytes(memory)
    except ValueError as error:
        raise InputError(f"--memory: {error}") from None
    began = time.monotonic()
    with preparing(as_json) as progress:
        if ray is None:
            manifest = preparation.prepare(
                raw,
                out,
                options,
                workers=workers or preparation.default_workers(),
                memory=limit,
                progress=progress,
            )
        else:
            from sizewise_prep.on_ray import prepare_on_ray

            manifest = prepare_on_ray(raw, out, options, address=ray, memory=limit, progress=progress)
    seconds = time.monotonic() - began
    shards = sum(len(part.shards) for part in manifest.splits.values())
    if as_json:
        _print_json(
            {
                "out": str(out),
                "rows_in": manifest.rows_in,
                "rows_out": manifest.rows_out,
                "rows_quarantined": manifest.rows_quarantined,
                "shards": shards,
                "seconds": round(seconds, 3),
            }
        )
    else:
        aside = (
            f", {manifest.rows_quarantined:,} set aside in quarantine/" if manifest.rows_quarantined else ""
        )
        print(f"{out}: {manifest.rows_out:,} rows in {shards} shards{aside}")


@app.command()
def run(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    runs: Runs = "runs",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a field, such as trials=4."),
    ] = None,
    optuna_storage: OptunaStorage = None,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Start a study, on the current Ray cluster or a local one."""
    from sizewise import spec
    from sizewise.study import run as study
    from sizewise.terminal import trial_events

    asked = spec.load(study_file, _overrides(set_ or []))

    with signals.terminate_as_interrupt():
        with _pausing(asked.name, runs), trial_events(asked.trials, 0, as_json) as on_event:
            finished = study.run(
                asked,
                place(runs),
                source=str(study_file),
                on_event=on_event,
                optuna_storage=optuna_storage,
                ray=ray,
            )
        _conclude(place(runs), asked.name, finished, as_json)


@app.command()
def resume(
    name: Name,
    runs: Runs = "runs",
    optuna_storage: OptunaStorage = None,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Continue an interrupted study."""
    from sizewise import results
    from sizewise.study import run as study
    from sizewise.terminal import trial_events

    folder = place(runs)
    trials = results.status(folder, name)["trials"]
    done = trials["finished"] + trials["pruned"] + trials["failed"]
    with signals.terminate_as_interrupt():
        with _pausing(name, runs), trial_events(trials["asked"], done, as_json) as on_event:
            finished = study.resume(name, folder, on_event=on_event, optuna_storage=optuna_storage, ray=ray)
        _conclude(folder, name, finished, as_json)


@contextmanager
def _pausing(name: str, runs: str) -> Iterator[None]:
    """Say how to go on with a study that cannot be written just now."""
    from sizewise.study.run import PausedError, to_continue

    try:
        yield
    except PausedError as error:
        print(f"sizewise: {to_continue(name, runs, str(error))}", file=sys.stderr)
        sys.exit(1)


def _conclude(runs: Place, name: str, finished: bool, as_json: bool) -> None:
    """Say what a study found, or how to continue it."""
    from sizewise import results
    from sizewise.terminal import err, print_table

    study = results.load(runs, name)
    answer = results.answer(study)
    if as_json:
        _print_json(
            {**results.status(runs, name), "answer": answer.sentence, "front": study.front.to_dicts()}
        )
    else:
        print_table(study.front, FRONT, f"Pareto front of {name}")
        print(answer.sentence)
    if not finished:
        err.print(
            f"interrupted: continue with `sizewise resume {name} --runs {runs}`", markup=False, soft_wrap=True
        )
        sys.exit(signals.exit_code())
    if study.trials.height and (study.trials["state"] == "failed").all():
        sys.exit(1)


@app.command()
def status(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A study; all of them when left out.")
    ] = None,
    runs: Runs = "runs",
    trial: Annotated[
        int | None, typer.Option(help="How one trial went: its state, reason and traceback.", min=0)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how studies stand."""
    from sizewise import results
    from sizewise.terminal import print_table
    from sizewise.units import describe_cost, format_seconds

    if trial is not None:
        if name is None:
            raise InputError("status: --trial needs the NAME of its study")
        story = results.story(place(runs), name, trial)
        if as_json:
            _print_json(story)
        else:
            again = f", {story['attempts']} attempts" if story["attempts"] > 1 else ""
            print(f"trial {trial} of {name}: {story['state']}{again}")
            print(*filter(None, (story["error"], story["traceback"].rstrip())), sep="\n")
        return
    if name is None:
        studies = results.studies(place(runs))
        if as_json:
            _print_json({"runs": str(runs), "studies": studies.to_dicts()})
        elif studies.is_empty():
            print(f"{runs}: no studies yet; start one with `sizewise run STUDY.yaml`")
        else:
            columns = ["name", "state", "asked", "finished", "pruned", "failed", "running", "best_auc"]
            print_table(studies, columns, f"Studies in {runs}")
        return
    found = results.status(place(runs), name)
    if as_json:
        _print_json(found)
        return
    trials = found["trials"]
    left = (
        f", about {format_seconds(found['seconds_left'])} left" if found["seconds_left"] is not None else ""
    )
    print(
        f"{name}: {found['state']}, {trials['finished']} of {trials['asked']} trials finished, "
        + (f"{trials['pruned']} stopped early, " if trials["pruned"] else "")
        + f"{trials['running']} running, {trials['failed']} failed"
        + (f", {trials['infeasible']} not trained (constraints)" if trials["infeasible"] else "")
        + left
    )
    print(f"cost so far: {describe_cost(found['cost'])}")
    if found["message"]:
        print(found["message"])
    failed = results.load(place(runs), name).trials.filter(state="failed")
    for trial_id, error in failed.select("trial_id", "error").iter_rows():
        print(f"trial {trial_id} failed: {error}")
    if failed.height:
        print(f"tracebacks: sizewise status {name} --runs {runs} --trial ID")


@app.command("results")
def results_(
    name: Name,
    runs: Runs = "runs",
    table: Annotated[TableName, typer.Option(help="Which table.")] = TableName.trials,
    format_: Annotated[TableFormat, typer.Option("--format", help="How it is written.")] = TableFormat.table,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of the terminal.")] = None,
    as_json: Json = False,
) -> None:
    """Print or write a study's tables: trials, evaluations, or the Pareto front over evaluations."""
    from sizewise import results
    from sizewise.terminal import err, print_table

    study = results.load(place(runs), name)
    for problem in study.problems:
        err.print(problem, style="yellow", markup=False, soft_wrap=True)
    frame = getattr(study, table.value)
    if as_json:
        _print_json({"name": name, "table": table.value, "rows": frame.to_dicts()})
    elif format_ is TableFormat.table and out is None:
        print_table(frame, TRIALS if table is TableName.trials else FRONT, f"{table.value} of {name}")
    else:
        _write_table(frame, format_, out)


def _write_table(frame: Any, format_: TableFormat, out: Path | None) -> None:
    if format_ is TableFormat.table:
        format_ = TableFormat.csv
    if format_ is TableFormat.parquet and out is None:
        raise InputError("--format parquet is not for a terminal: add --out FILE.parquet")
    write = {"json": frame.write_json, "csv": frame.write_csv, "parquet": frame.write_parquet}[format_.value]
    if out is None:
        print(write())
        return
    try:
        write(out)
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror or error}): choose another --out"
        ) from None


@app.command()
def choose(
    name: Name,
    runs: Runs = "runs",
    max_bytes: Annotated[str | None, typer.Option(help="At most this size, such as 10MB.")] = None,
    max_iterations: Annotated[int | None, typer.Option(help="At most this many iterations.", min=1)] = None,
    min_auc: Annotated[float | None, typer.Option(help="At least this AUC.", min=0, max=1)] = None,
    as_json: Json = False,
) -> None:
    """Choose a model: the smallest of a wanted AUC, or the most accurate within limits."""
    from sizewise import results
    from sizewise.units import format_auc, format_bytes, format_count, parse_bytes

    try:
        limit = (
            None
            if max_bytes is None
            else parse_bytes(max_bytes if not max_bytes.isdigit() else int(max_bytes))
        )
    except ValueError as error:
        raise InputError(f"--max-bytes: {error}") from None
    choice = results.choose(results.load(place(runs), name), limit, max_iterations, min_auc)
    if as_json:
        _print_json(dataclasses.asdict(choice))
    else:
        print(
            f"trial {choice.trial_id} at iteration {format_count(choice.iteration)}: AUC {format_auc(choice.auc)}, "
            f"embeddings {format_bytes(choice.embedding_bytes)}\n{choice.why}"
        )


@app.command()
def report(
    name: Name,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    runs: Runs = "runs",
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML file with the answer, the front and the figures."""
    from sizewise import report as reports
    from sizewise import results

    reports.write(results.load(place(runs), name), out)
    if as_json:
        _print_json({"out": str(out), "bytes": out.stat().st_size})
    else:
        print(f"{out}: written; open it in any browser")


@app.command()
def export(
    name: Name,
    trial: Annotated[int, typer.Option(help="Which trial; `sizewise choose` names one.", min=0)],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    runs: Runs = "runs",
    as_json: Json = False,
) -> None:
    """Write a trial's best model as a folder that runs without Sizewise, with its measured latency."""
    from sizewise import export as exports
    from sizewise.units import format_bytes

    found = exports.export(place(runs), name, trial, out)
    if as_json:
        _print_json({"out": str(out), **found.model_dump(mode="json")})
        return
    print(
        f"{out}: trial {trial} at iteration {found.iteration:,}, validation AUC {_auc(found.validation['auc'])}, "
        f"model {format_bytes(found.model_bytes)} ({format_bytes(found.program_bytes)} on disk)"
    )
    print(*(f"{at.rows:,} rows: {at.milliseconds:.3g} ms" for at in found.latency), sep=", ", end=" ")
    print(f"({found.measured_on})")


Deployment = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `sizewise export` wrote.")]
Raw = Annotated[list[str], typer.Argument(metavar="RAW...", help="Raw logs in the layout of its study.")]
MaxBad = Annotated[
    float, typer.Option(help="Leave bad rows out up to this fraction; 0 stops at the first.", min=0, max=1)
]


@app.command()
def score(
    model: Deployment,
    raw: Raw,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    max_bad_fraction: MaxBad = 0.0,
    as_json: Json = False,
) -> None:
    """Write an exported model's prediction for every row of raw logs."""
    from sizewise import export as exports
    from sizewise.terminal import bytes_read

    with bytes_read("score", as_json) as progress:
        done = exports.score(exports.Deployed.open(model), raw, out, max_bad_fraction, progress)
    if as_json:
        _print_json({"out": str(out), "rows": done.rows, "bad_rows": done.bad_rows})
    else:
        print(
            f"{out}: {done.rows:,} rows" + (f", {done.bad_rows:,} bad ones left out" if done.bad_rows else "")
        )


@app.command()
def evaluate(model: Deployment, raw: Raw, max_bad_fraction: MaxBad = 0.0, as_json: Json = False) -> None:
    """Print how good an exported model's predictions are on raw logs."""
    from sizewise import export as exports
    from sizewise.terminal import bytes_read

    with bytes_read("evaluate", as_json) as progress:
        done = exports.evaluate(exports.Deployed.open(model), raw, max_bad_fraction, progress)
    assert done.scores
    scores = {name: None if value != value else value for name, value in done.scores._asdict().items()}
    if as_json:
        _print_json({**scores, "rows": done.rows, "bad_rows": done.bad_rows})
        return
    print(
        f"AUC {_auc(scores['auc'])}, log-loss {_auc(scores['logloss'])}, normalized entropy "
        f"{_auc(scores['normalized_entropy'])} on {done.rows:,} rows"
        + (f", {done.bad_rows:,} bad ones left out" if done.bad_rows else "")
    )
    if done.scores.undefined:
        print(done.scores.undefined)


@app.command()
def dashboard(
    runs: Runs = "runs",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8501,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Open the Streamlit app over a folder of studies."""
    # Found by its entry point, because this package must not import the one that is built on it.
    (serve,) = entry_points(group="sizewise.commands", name="dashboard")
    raise typer.Exit(serve.load()(place(runs), port, address))


@app.command()
def bound(
    data: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="A folder of shards, for its number of values.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Values of all features, instead of DIR.", min=2)] = None,
    dim: Annotated[int, typer.Option(help="Length of an embedding vector.", min=1)] = 16,
    eps: Annotated[float, typer.Option(help="Relative error of squared distances, between 0 and 1.")] = 0.1,
    as_json: Json = False,
) -> None:
    """Print how much memory is enough in theory, by the Johnson-Lindenstrauss lemma."""
    from sizewise import theory
    from sizewise.units import format_bytes, format_count, format_ratio
    from sizewise_prep.manifest import Manifest

    if (data is None) == (rows is None):
        raise InputError("bound: give a folder of shards, or --rows N")
    found = theory.memory_bound(rows if data is None else Manifest.load(data).full_rows, dim, eps)  # type: ignore[arg-type]
    if as_json:
        _print_json(found._asdict())
    else:
        print(
            f"{format_count(found.dimensions)} dimensions x {dim}: {format_bytes(found.bytes)} instead of "
            f"{format_bytes(found.full_bytes)} ({format_ratio(found.ratio)})\n{found.statement}\n{found.source}"
        )


def _overrides(pairs: list[str]) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise InputError(f"--set {pair}: write KEY=VALUE, such as --set trials=4")
        try:
            found[key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            raise InputError(f"--set {pair}: {text} is not a value") from None
    return found


def _auc(value: float | None) -> str:
    from sizewise.units import format_auc

    return "undefined" if value is None else format_auc(value)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, default=str))


if __name__ == "__main__":
    main()
