"""Models outside of studies: `export`, `score` and `evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from sizewise.cli.shared import Json, Name, Runs, app, auc_text, command, print_json
from sizewise_core.machine import limits
from sizewise_core.stores.storage import place


@app.command()
def export(
    name: Name,
    trial: Annotated[int, typer.Option(help="Which trial; `sizewise choose` names one.", min=0)],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    runs: Runs = "runs",
    iteration: Annotated[
        int | None,
        typer.Option(help="Which evaluation: one on the front; when left out, the trial's best.", min=0),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Round a model that was trained in float32 to bfloat16, int8, int4 or int2.",
            metavar="STORAGE",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a trial's model as a folder that needs PyTorch alone.

    With its latency, as measured on this machine.
    """
    from sizewise.cli.output.terminal import print_problems, say, waiting
    from sizewise_core.units import format_bytes

    with waiting("loading PyTorch", as_json):
        from sizewise import export as exports

    _use_allowed_threads()
    problems: list[str] = []
    try:
        with waiting("writing the model and measuring its latency", as_json):
            found = exports.export(place(runs), name, trial, out, problems, storage, iteration)
    finally:
        print_problems(problems, command("results", name, runs, "--problems"))
    if as_json:
        print_json({"out": str(out), **found.model_dump(mode="json"), "problems": problems})
        return
    say(
        f"{out}: trial {trial} at iteration {found.iteration:,}"
        + (f" in {found.stored_as}" if found.stored_as else "")
        + f", validation AUC {auc_text(found.validation.get('auc'))}, "
        f"model {format_bytes(found.model_bytes)} ({format_bytes(found.program_bytes)} on disk)"
    )
    latency = ", ".join(
        f"{at.rows:,} {'row' if at.rows == 1 else 'rows'}: {at.milliseconds:.3g} ms" for at in found.latency
    )
    say(f"{latency} ({found.measured_on})")


def _use_allowed_threads() -> None:
    """Use no more threads than allowed CPUs: PyTorch considers an affinity mask, but no quota of a control group."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), limits.cpus()))


Deployment = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `sizewise export` wrote.")]
Raw = Annotated[list[str], typer.Argument(metavar="RAW...", help="Raw logs in the layout of its study.")]
MaxBad = Annotated[
    float, typer.Option(help="Leave bad rows out up to this fraction; 0 stops at the first.", min=0, max=1)
]

FileFormat = Annotated[
    str | None,
    typer.Option(
        "--format", help="Of NumPy arrays and sparse text, as for `prep`: torchrec, dlrm, libsvm or libffm."
    ),
]


@app.command()
def score(
    model: Deployment,
    raw: Raw,
    out: Annotated[Path, typer.Option(help="The file to write: FILE.csv, FILE.parquet or FILE.arrow.")],
    max_bad_fraction: MaxBad = 0.0,
    form: FileFormat = None,
    as_json: Json = False,
) -> None:
    """Write an exported model's predictions for raw logs."""
    from sizewise.cli.output.terminal import bytes_read, waiting

    with waiting("loading PyTorch", as_json):
        from sizewise import export as exports
        from sizewise.export import score_files

    score_files.check(out)  # before the model is read, which may take long
    _use_allowed_threads()
    with bytes_read("score", as_json) as progress:
        done = exports.score(exports.Deployed.open(model), raw, out, max_bad_fraction, progress, form)
    if as_json:
        print_json({"out": str(out), "rows": done.rows, "bad_rows": done.bad_rows})
    else:
        print(
            f"{out}: {done.rows:,} rows" + (f", {done.bad_rows:,} bad ones left out" if done.bad_rows else "")
        )


@app.command()
def evaluate(
    model: Deployment,
    raw: Raw,
    max_bad_fraction: MaxBad = 0.0,
    form: FileFormat = None,
    as_json: Json = False,
) -> None:
    """Print how good an exported model's predictions are on raw logs."""
    from sizewise.cli.output.terminal import bytes_read, say, waiting

    with waiting("loading PyTorch", as_json):
        from sizewise import export as exports

    _use_allowed_threads()
    with bytes_read("evaluate", as_json) as progress:
        done = exports.evaluate(exports.Deployed.open(model), raw, max_bad_fraction, progress, form)
    assert done.scores
    scores = {name: None if value != value else value for name, value in done.scores._asdict().items()}
    if as_json:
        print_json({**scores, "rows": done.rows, "bad_rows": done.bad_rows})
        return
    say(
        f"AUC {auc_text(scores['auc'])}, log-loss {auc_text(scores['logloss'])}, normalized entropy "
        f"{auc_text(scores['normalized_entropy'])}, calibration {auc_text(scores['calibration'])} (predicted over "
        f"observed clicks) on {done.rows:,} rows"
        + (f", {done.bad_rows:,} bad ones left out" if done.bad_rows else "")
    )
    if done.scores.undefined:
        say(done.scores.undefined)
