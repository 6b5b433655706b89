"""`choose`: which model to take, how sure that is, and against what runs today."""

import dataclasses
from typing import Annotated, Any

import typer

from sizewise.cli.records import takes
from sizewise.cli.shared import Json, Name, Runs, app, baseline_of, command, print_json
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import JsonObject
from sizewise_core.stores.storage import place


@dataclasses.dataclass(frozen=True)
class ChoiceOptions:
    """The options of `choose`."""

    name: Name
    runs: Runs = "runs"
    max_bytes: Annotated[str | None, typer.Option(help="At most this size, such as 10MB.")] = None
    max_iterations: Annotated[int | None, typer.Option(help="At most this many iterations.", min=1)] = None
    min_auc: Annotated[float | None, typer.Option(help="At least this AUC.", min=0, max=1)] = None
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="The smallest model that loses at most this AUC to the best one; 0.002.", min=0, max=1
        ),
    ] = None
    confident: Annotated[
        bool,
        typer.Option(
            "--confident", help="Not by the estimate alone: at the worse end of its 95 % interval too."
        ),
    ] = False
    baseline: Annotated[
        str | None,
        typer.Option(
            help="What runs today, in place of the study file's: auc=0.75,bytes=20MB; an exported folder; a "
            "TorchScript, torch.export or ONNX program; a file of scores for the validation rows; or none.",
            metavar="FIGURES|PATH",
        ),
    ] = None
    auc_value: Annotated[
        float | None, typer.Option(help="With --baseline: what 0.001 AUC brings in a month.", min=0)
    ] = None
    gb_price: Annotated[
        float | None, typer.Option(help="With --baseline: what a GB in serving costs a month.", min=0)
    ] = None
    serving_replicas: Annotated[
        int, typer.Option(help="With --baseline: how many copies of the model are served.", min=1)
    ] = 1
    as_json: Json = False


@app.command()
@takes(ChoiceOptions)
def choose(asked: ChoiceOptions) -> None:
    """Choose the smallest model that loses little, or by limits.

    Without options it is the study's answer, the smallest model that loses at most 0.002 AUC to the best one. With a
    limit of bytes or iterations, the most accurate within it; with --min-auc the smallest that reaches it.
    """
    from sizewise import results
    from sizewise.cli.output.terminal import print_problems, say
    from sizewise.results.commands import export as export_command
    from sizewise.results.decision.choosing import NEAR
    from sizewise.results.weights import kept_weights

    limits = results.Limits(_bytes(asked.max_bytes), asked.max_iterations, asked.min_auc)
    study = results.load(place(asked.runs), asked.name)
    print_problems(study.problems, command("results", asked.name, asked.runs, "--problems"))
    by_loss = limits == results.Limits() or asked.max_loss is not None or asked.confident
    answer, of_logloss = None, None
    if by_loss and not study.candidates.is_empty():
        tolerance = NEAR if asked.max_loss is None else asked.max_loss
        answer = results.answer(study, tolerance, asked.confident, limits)
        if not answer.met:
            raise InputError(f"study {study.name}: {answer.sentence}")
    if answer and answer.smallest:
        choice, why, loss = answer.smallest, answer.sentence, answer.loss
        of_logloss = answer.logloss
    else:
        choice = results.choose(study, limits.max_bytes, limits.max_iterations, limits.min_auc)
        loss = results.lost(study, choice)
        of_logloss = results.lost(study, choice, "logloss")
        why = (
            choice.why
            if not loss.rows_error > 0
            else f"{choice.why}; AUC {loss.text} than the best of the study"
        )
    shipped = choice.iteration in kept_weights(study, choice.trial_id)
    export = export_command(study, choice.trial_id, choice.stored_as, choice.iteration if shipped else None)
    (best_iteration,) = study.trials.filter(trial_id=choice.trial_id)["iteration"]
    exported = choice.iteration if shipped else best_iteration
    today = _against_today(asked, study, choice)
    if asked.as_json:
        about = (
            answer.as_json()
            if answer
            else {"loss": loss and loss.as_json(), "logloss_difference": of_logloss and of_logloss.as_json()}
        )
        command_line = {"export": export, "export_iteration": exported, "problems": study.problems}
        print_json({**dataclasses.asdict(choice), **about, **today[0], **command_line})
        return
    _print_choice(choice)
    for line in (why, *today[1]):
        say(line)
    if of_logloss and of_logloss.rows_error > 0:
        say(f"Log-loss {of_logloss.detail} than the best one's.")
    if answer and answer.selection:
        say(f"{answer.selection.text}.")
    if exported != choice.iteration:
        say(f"What is exported is this trial at its best AUC, at iteration {exported:,}:")
    print(export)


def _against_today(asked: ChoiceOptions, study: Any, choice: Any) -> tuple[JsonObject, list[str]]:
    """What the choice is against the baseline, for --json and in lines; nothing without one."""
    from sizewise.results.decision import baseline as baselines
    from sizewise.results.decision.intervals import point

    today = baseline_of(asked.baseline, study, asked.runs)
    if today is None:
        if asked.auc_value is not None or asked.gb_price is not None:
            raise InputError("--auc-value and --gb-price compare with what runs today: add --baseline")
        return {}, []
    if (asked.auc_value is None) != (asked.gb_price is None):
        raise InputError("--auc-value and --gb-price: give both, or neither")
    one = point(study, choice.trial_id, choice.iteration, choice.stored_as)
    size = int(one[study.size][0])
    (difference,) = baselines.against(study, one, today)
    of_logloss = None if today.logloss is None else baselines.against(study, one, today, "logloss")[0]
    even, lines = None, [baselines.in_words(today, size, difference)]
    if asked.auc_value is not None and asked.gb_price is not None:
        prices = baselines.Prices(asked.auc_value, asked.gb_price, asked.serving_replicas)
        even = baselines.break_even(today, size, difference, prices)
        if even is None:
            raise InputError("--baseline: has no bytes, by which memory is paid for: add bytes=20MB")
        lines.append(even.text)
    return {"baseline": baselines.as_json(today, difference, even, of_logloss)}, lines


def _print_choice(choice: Any) -> None:
    """Which model it is, in a line."""
    from sizewise.cli.output.terminal import say
    from sizewise_core.units import format_auc, format_bytes, format_count

    known = choice.auc_low is not None
    interval = f" ({format_auc(choice.auc_low)} to {format_auc(choice.auc_high)})" if known else ""
    say(
        f"trial {choice.trial_id} at iteration {format_count(choice.iteration)}: AUC {format_auc(choice.auc)}"
        f"{interval}, embeddings {format_bytes(choice.embedding_bytes)}"
        + (f", rounded to {choice.stored_as}" if choice.stored_as else "")
    )


def _bytes(text: str | None) -> int | None:
    """The value of --max-bytes."""
    from sizewise_core.units import parse_bytes

    try:
        return None if text is None else parse_bytes(int(text) if text.isdigit() else text)
    except ValueError as error:
        raise InputError(f"--max-bytes: {error}") from None
