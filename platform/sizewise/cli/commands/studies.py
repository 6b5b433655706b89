"""Studies: `run`, `resume` and `status`."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sizewise.cli.shared import (
    Json,
    Name,
    OptunaStorage,
    Ray,
    Runs,
    Wide,
    app,
    command,
    print_json,
    study_names,
)
from sizewise.engine.driving import signals
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import place

if TYPE_CHECKING:
    from sizewise.results import Answer, Status, Study

_MOST_REASONS = 10  # for failures of trials, that are printed
_MOST_LETTERS = 1_000  # of each reason
_MOST_IDS = 10  # trials that are named for one reason


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
    from sizewise.cli.output.terminal import waiting
    from sizewise_core.files.yaml_files import load_yaml

    fields = overrides(set_ or [])
    if study_file.is_file():  # a pipe can be read only once
        load_yaml(study_file)  # reports bad YAML before PyTorch is loaded, which takes seconds
    with waiting("loading PyTorch", as_json):
        from sizewise import config
        from sizewise.cli.output.running import running
        from sizewise.engine import run as study

    asked, folder = config.load(study_file, fields), place(runs)
    with signals.terminate_as_interrupt():
        with _pausing(asked.name, runs), running(asked.name, folder, asked.trials, as_json) as shown:
            shown.waits("starting Ray")
            finished = study.run(
                asked,
                folder,
                source=str(study_file),
                on_event=shown.event,
                optuna_storage=optuna_storage,
                ray=ray,
            )
        _conclude(runs, asked.name, finished, as_json)


@app.command()
def resume(
    name: Name,
    runs: Runs = "runs",
    optuna_storage: OptunaStorage = None,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Continue an interrupted study."""
    from sizewise.cli.output.terminal import waiting

    with waiting("loading PyTorch", as_json):
        from sizewise import results
        from sizewise.cli.output.running import running
        from sizewise.engine import run as study

    folder = place(runs)
    trials = results.status(folder, name)["trials"]
    done = trials["finished"] + trials["pruned"] + trials["failed"]
    with signals.terminate_as_interrupt():
        with _pausing(name, runs), running(name, folder, trials["asked"], as_json, done) as shown:
            shown.waits("starting Ray")
            finished = study.resume(
                name, folder, on_event=shown.event, optuna_storage=optuna_storage, ray=ray
            )
        _conclude(runs, name, finished, as_json)


@contextmanager
def _pausing(name: str, runs: str) -> Iterator[None]:
    """Print how to continue a study that was interrupted or cannot be written now; exit with the code of the signal."""
    from sizewise.engine.driving.leaving import interrupted, to_continue
    from sizewise.engine.run import PausedError

    try:
        yield
    except KeyboardInterrupt:  # before there was a study, or anything was changed in one
        print("sizewise: interrupted", file=sys.stderr)
        sys.exit(signals.exit_code())
    except Exception as error:
        if signals.received():  # Ray's processes may have got it too, so it is the cause of any failure
            print(interrupted(name, runs), file=sys.stderr)
            sys.exit(signals.exit_code())
        if not isinstance(error, PausedError):
            raise
        print(f"sizewise: {to_continue(name, runs, str(error))}", file=sys.stderr)
        sys.exit(1)


def _conclude(runs: str, name: str, finished: bool, as_json: bool) -> None:
    """Print what a study found, and if it is not finished how to continue it."""
    from sizewise import results
    from sizewise.cli.output.tables import print_front
    from sizewise.cli.output.terminal import err, print_problems, say
    from sizewise.engine.driving.leaving import interrupted
    from sizewise.results.decision.intervals import with_best

    study = results.load(place(runs), name)
    answer = results.answer(study)
    against, said = _against_today(study, answer)
    print_problems(study.problems, command("results", name, runs, "--problems"))
    if as_json:
        now = {**results.status(place(runs), name), "problems": study.problems}
        print_json(
            {
                **now,
                "answer": answer.sentence,
                "choice": answer.as_json(),
                **against,
                "front": with_best(study, study.front).to_dicts(),
            }
        )
    else:
        print_front(study, command("results", name, runs, "--table", "front"))
        for line in (answer.sentence, *said):
            say(line)
    if not finished:
        err.print(interrupted(name, runs), markup=False, soft_wrap=True)
        sys.exit(signals.exit_code())
    if study.trials.height and (study.trials["state"] == "failed").all():
        sys.exit(1)


def _against_today(study: "Study", answer: "Answer") -> tuple[dict[str, object], list[str]]:
    """The answer against what runs today, for --json and in words; nothing where the study file names nothing."""
    from sizewise.results.decision import baseline as baselines
    from sizewise.results.decision.intervals import point

    today, chosen = baselines.of_study(study), answer.smallest
    if today is None or chosen is None:
        return {}, []
    one = point(study, chosen.trial_id, chosen.iteration, chosen.stored_as)
    (difference,) = baselines.against(study, one, today)
    words = baselines.in_words(today, int(one[study.size][0]), difference)
    return {"baseline": baselines.as_json(today, difference)}, [words]


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A study; all of them when left out.", autocompletion=study_names
        ),
    ] = None,
    runs: Runs = "runs",
    trial: Annotated[
        int | None, typer.Option(help="How one trial went: its state, reason and traceback.", min=0)
    ] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Show how studies stand."""
    if trial is not None:
        if name is None:
            raise InputError("status: --trial needs the NAME of its study")
        _print_trial(name, runs, trial, as_json)
    elif name is None:
        _print_studies(runs, wide, as_json)
    else:
        _print_status(name, runs, as_json)


def _print_trial(name: str, runs: str, trial: int, as_json: bool) -> None:
    """How one trial went: its state, what its attempts lost, and its error with the traceback."""
    from sizewise import results
    from sizewise.cli.output.terminal import print_problems, say

    report = results.trial_report(place(runs), name, trial)
    print_problems(report.problems, command("results", name, runs, "--problems"))
    if as_json:
        print_json(report.as_json())
        return
    record = report.record
    again = f", {record.attempts} attempts" if record.attempts > 1 else ""
    say(f"trial {trial} of {name}: {record.state}{again}")
    for attempt, reason in record.lost.items():
        say(f"attempt {attempt} lost its worker: {reason}")
    for text in filter(None, (record.error, report.traceback.rstrip())):
        say(text)


def _print_studies(runs: str, wide: bool, as_json: bool) -> None:
    """A line for each study in a folder."""
    from sizewise import results
    from sizewise.cli.output.tables import print_table
    from sizewise.cli.output.terminal import print_problems

    studies = results.studies(place(runs))
    every = f"sizewise status --runs {shlex.quote(runs)} --json"
    listed = studies.select("name", "problems").iter_rows()
    print_problems([_first_problem(*damaged) for damaged in listed if damaged[1]], every)
    if as_json:
        print_json({"runs": str(runs), "studies": studies.to_dicts()})
    elif studies.is_empty():
        print(f"{runs}: no studies yet; start one with `sizewise run STUDY.yaml`")
    else:
        columns = ["name", "state", "asked", "finished", "pruned", "failed", "running", "best_auc"]
        print_table(studies, columns, f"Studies in {runs}", wide=wide, every_row=every)


def _print_status(name: str, runs: str, as_json: bool) -> None:
    """How far one study is, what it cost, and why trials of it failed."""
    from sizewise import results
    from sizewise.cli.output.terminal import print_problems, say
    from sizewise_core.units import describe_cost

    study = results.load(place(runs), name)
    found: results.Status = {**results.status(place(runs), name), "problems": study.problems}
    print_problems(study.problems, command("results", name, runs, "--problems"))
    if as_json:
        print_json(found)
        return
    say(_progress(name, found))
    say(f"cost so far: {describe_cost(**found['cost'])}")
    if found["message"]:
        say(found["message"])
    for reason, ids in found["lost"].items():
        say(f"lost a worker in trial {_listed(ids)}: {reason}")
    failed = study.trials.filter(state="failed")
    reasons = failed.group_by("error", maintain_order=True).agg("trial_id")
    for error, ids in reasons.head(_MOST_REASONS).iter_rows():
        say(f"trial {_listed(ids)} failed: {str(error)[:_MOST_LETTERS]}")
    if reasons.height > _MOST_REASONS:
        more = reasons.height - _MOST_REASONS
        say(f"{more:,} more reasons; all: `{command('results', name, runs, '--json')}`")
    if failed.height:
        print(f"tracebacks: {command('status', name, runs, '--trial', 'ID')}")


def _progress(name: str, found: "Status") -> str:
    """One line: the study's state and its trials by state."""
    from sizewise_core.units import format_seconds

    trials, left = found["trials"], found["seconds_left"]
    parts = [f"{name}: {found['state']}", f"{trials['finished']} of {trials['asked']} trials finished"]
    if trials["pruned"]:
        parts.append(f"{trials['pruned']} stopped early")
    parts += [f"{trials['running']} running", f"{trials['failed']} failed"]
    if trials["infeasible"]:
        parts.append(f"{trials['infeasible']} not trained (constraints)")
    if left is not None:
        parts.append(f"about {format_seconds(left)} left")
    return ", ".join(parts)


def _listed(ids: list[int]) -> str:
    """The first of some trials, and how many more there are."""
    more = len(ids) - _MOST_IDS
    return ", ".join(map(str, ids[:_MOST_IDS])) + (f" and {more:,} more" if more > 0 else "")


def _first_problem(study: str, problems: list[str]) -> str:
    """One line for each damaged study."""
    more = f"; and {len(problems) - 1:,} more of its problems" if len(problems) > 1 else ""
    return f"{study}: {problems[0]}{more}"


def overrides(pairs: list[str]) -> dict[str, object]:
    """The fields that `--set KEY=VALUE` replaces, by dotted key. Raises InputError for other texts."""
    from sizewise_core.files.yaml_files import YamlError, parse_yaml

    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise InputError(f"--set {pair}: write KEY=VALUE, such as --set trials=4")
        try:
            found[key] = parse_yaml(text, plain=True)
        except YamlError as error:
            raise InputError(f"--set {key}: {' '.join(text.split()):.80} is not a value: {error}") from None
    return found
