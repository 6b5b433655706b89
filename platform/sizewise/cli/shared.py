"""What the commands share: the app, common options, and how results are printed."""

import json
import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from sizewise_core.stores.storage import place

if TYPE_CHECKING:
    from sizewise.results import Study
    from sizewise.results.decision.baseline import Baseline

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="How small can a recommendation model be, and what does each size cost in accuracy and iterations?",
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")
]
Runs = Annotated[
    str, typer.Option("--runs", help="The folder of studies: a path, or a URI such as s3://bucket/runs.")
]
# The environment variable keeps a password out of the list of processes.
OptunaStorage = Annotated[
    str | None,
    typer.Option(
        "--optuna-storage",
        metavar="URL",
        envvar="SIZEWISE_OPTUNA_STORAGE",
        help="Mirror the study there, for optuna-dashboard: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DB.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="The Ray cluster: HOST:PORT, auto (the one on this machine), or local (one for this study alone). When "
        "left out: RAY_ADDRESS, else your own on this machine if there is one, else local.",
    ),
]


def study_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of studies that begin like this, for the shell's completion; their folders are not opened."""
    try:
        found = [entry.name for entry in os.scandir(context.params.get("runs") or "runs") if entry.is_dir()]
    except OSError:  # including a URI, which would take too long to list
        return []
    return sorted(name for name in found if name.startswith(incomplete))


Name = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.", autocompletion=study_names)]
Wide = Annotated[
    bool,
    typer.Option("--wide", help="Print every column of the table, whatever the width of the terminal."),
]


def front_columns() -> list[str]:
    """The columns of a table of candidates."""
    from sizewise.metrics.registry import with_listed

    scores = ["auc", "auc_low", "auc_high", "replicates"]
    sizes = ["embedding_bytes", "compression_ratio", "model_bytes"]
    columns = ["trial_id", "stored_as", *scores, *sizes, "iteration", "epoch"]
    columns += ["method", "storage", "width", "learning_rate"]
    return with_listed(columns, after="epoch")


def command(name: str, study: str, runs: str, *more: str) -> str:
    """A command about a study, as users type it: `sizewise results mine --runs elsewhere --table front`.

    Args:
        name: of the command.
        study: name of the study.
        runs: the folder of studies; left out where it is the default.
        more: further arguments.
    """
    where = [] if runs == "runs" else ["--runs", runs]
    return shlex.join(["sizewise", name, study, *where, *more])


def baseline_of(asked: str | None, study: "Study", runs: str) -> "Baseline | None":
    """What runs today: as `--baseline` says, else as the study file does.

    Args:
        asked: the value of `--baseline`, where it was given; "none" for no baseline.
        study: with which it is compared.
        runs: the folder of studies.
    """
    from sizewise.results.decision import baseline as baselines
    from sizewise.store.baselines import BaselineAsked

    if asked is None:
        return baselines.of_study(study)
    if asked == "none":
        return None
    today = BaselineAsked.read(asked)
    if today.path is None:
        return baselines.Baseline.of(baselines.of_figures(today))
    from sizewise.export.baseline import Where, recorded  # which loads PyTorch

    return baselines.Baseline.of(recorded(today, Where.of_study(study, place(runs))))


def auc_text(value: float | None) -> str:
    """An AUC or a loss in words."""
    from sizewise_core.units import format_auc

    return "undefined" if value is None else format_auc(value)


def print_json(value: Mapping[str, object]) -> None:
    """Print one JSON object, the only output on standard output."""
    print(json.dumps(value, default=str))
