"""What `run` and `resume` show while a study runs: what they wait for, how far trials are, and a line for each event.

with running("mine", place("runs"), asked=12, quiet=False) as shown:
    shown.waits("starting Ray")
    study.run(..., on_event=shown.event)
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn

from sizewise import results
from sizewise.cli.output.terminal import Bars, err
from sizewise.engine.driving.leaving import before_leaving
from sizewise.store.records import Record
from sizewise_core.printable import printable
from sizewise_core.stores.storage import Place
from sizewise_core.units import format_auc, format_bytes, format_count, format_ratio, format_seconds

MOST_TRIALS = 8  # running ones with a line of their own
LOOK_SECONDS = 2.0  # between two estimates of how long the study still takes
LOOK_SHARE = 0.02  # of the time, at most, that is spent on estimates


@contextmanager
def running(name: str, runs: Place, asked: int, quiet: bool, done: int = 0) -> Iterator["Running"]:
    """Show the progress of a study until the block ends.

    Args:
        name: the study's.
        runs: the folder of studies.
        asked: trials in all.
        quiet: show nothing.
        done: trials that had ended before.
    """
    shown = Running(asked, done, quiet)
    ended = threading.Event()
    # A bar is redrawn all the time, so it is for terminals only; elsewhere there are only the lines.
    if not quiet and err.is_terminal:
        shown.bars.start()
        looking = threading.Thread(
            target=_look, args=(name, runs, shown, ended), daemon=True, name="time left"
        )
        looking.start()

    def end() -> None:
        ended.set()
        shown.bars.stop()

    before_leaving.append(end)
    try:
        yield shown
    finally:
        before_leaving.remove(end)
        end()


class Running:
    """A bar over all trials, with the best AUC so far and the time left, and a line for each running one."""

    def __init__(self, asked: int, done: int, quiet: bool) -> None:
        self._quiet = quiet
        # Transient, so that the output ends with the table and the answer.
        self.bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=max(min(err.width - 70, 30), 8)),
            TextColumn("{task.fields[text]}", markup=False),
            quiet=quiet,
            transient=True,
        )
        self._waits = ""
        self._best: float | None = None
        self._end: float | None = None  # when the study will be over, by this process's clock
        self._all = self.bars.add_task("trials", total=asked, completed=done, text="")
        self._trials: dict[int, TaskID] = {}

    def waits(self, what: str) -> None:
        """Show what the study waits for before the first trial starts, such as "starting Ray"."""
        self._waits = what
        self._show()

    def looked(self, best: float | None, left: float | None) -> None:
        """Show the figures from the study's folder: the best AUC so far, and the seconds left."""
        self._end = None if left is None else time.monotonic() + left
        self._best = max((auc for auc in (best, self._best) if auc is not None), default=None)
        self._show()

    def event(self, event: str, record: Record, values: Mapping[str, float] | None) -> None:
        """Show an event of the study.

        Args:
            event: what happened; see `sizewise.store.trials.ledger.Event`.
            record: of the trial.
            values: the evaluation, where the event is one.
        """
        self._waits = ""
        if values and (auc := values.get("auc")) is not None and auc == auc:
            self._best = max(auc, self._best or 0.0)
        if event in ("finished", "pruned", "failed"):
            self.bars.advance(self._all)
            if (task := self._trials.pop(record.trial_id, None)) is not None:
                self.bars.remove_task(task)
        elif event in ("started", "began", "evaluated"):
            self._running(record, event, values)
        # Replicates, and trials that replace infeasible ones, are additional to the number in the study file.
        total = max(self.bars.tasks[0].total or 0, record.trial_id + 1)
        self.bars.update(self._all, total=total)
        self._show()
        line = _event_line(event, record, values)
        if line and not self._quiet:
            err.print(f"trial {record.trial_id}: {printable(line)}", markup=False, soft_wrap=True)

    def _running(self, record: Record, event: str, values: Mapping[str, float] | None) -> None:
        """Update the line of a running trial."""
        epochs = float(record.config["epochs"])
        task = self._trials.get(record.trial_id)
        if task is None:
            if len(self._trials) == MOST_TRIALS:
                return
            task = self.bars.add_task(f"trial {record.trial_id}", total=epochs, text="")
            self._trials[record.trial_id] = task
        if event == "started":
            text = "starting its workers"
        elif event == "began":
            text = f"training, evaluates {_every(record.config.get('evaluate_every'))}"
        else:
            assert values
            auc = values.get("auc")
            known = "undefined" if auc is None or auc != auc else format_auc(auc)
            text = f"epoch {values['epoch']:.2f} of {epochs:g}, AUC {known}"
            self.bars.update(task, completed=values["epoch"])
        self.bars.update(task, text=text)

    def _show(self) -> None:
        task = self.bars.tasks[0]
        parts = [f"{task.completed:,.0f} of {task.total:,.0f}"]
        if self._waits:
            parts.append(self._waits)
        if self._best is not None:
            parts.append(f"best AUC {format_auc(self._best)}")
        if self._end is not None and not task.finished:
            parts.append(f"{format_seconds(max(self._end - time.monotonic(), 1))} left")
        self.bars.update(self._all, text=", ".join(parts))


def _look(name: str, runs: Place, shown: Running, ended: threading.Event) -> None:
    """Look every now and then at what `sizewise status` would say; a look that fails is as good as none."""
    pause = LOOK_SECONDS
    while not ended.wait(pause):
        began = time.monotonic()
        with suppress(Exception):
            now = results.status(runs, name)
            if not ended.is_set():
                shown.looked(now["best_auc"], now["seconds_left"])
        pause = max(LOOK_SECONDS, (time.monotonic() - began) / LOOK_SHARE)


def _every(evaluate_every: Any) -> str:
    """How often a trial evaluates: in epochs, or in iterations as an integer."""
    if isinstance(evaluate_every, int):
        return f"every {evaluate_every:,} iterations"
    return f"every {evaluate_every:g} epochs" if isinstance(evaluate_every, float) else "as it goes"


def _event_line(event: str, record: Record, values: Mapping[str, float] | None) -> str:
    """One readable line an event; evaluations, and workers that have begun, pass without one."""
    if event == "started":
        config, again = record.config, f", attempt {record.attempts}" if record.attempts > 1 else ""
        epochs = f"{config['epochs']} epoch{'s' if config['epochs'] != 1 else ''}"
        role = "a teacher, " if record.teacher is not None else ""
        return (
            f"{role}{config['method']} {format_bytes(config['memory_budget'])}, learning rate "
            f"{config['learning_rate']:.3g}, {epochs}{again}"
        )
    if event == "finished" and values:
        return (
            f"AUC {format_auc(values['auc'])} at {format_bytes(values['embedding_bytes'])} "
            f"({format_ratio(values['compression_ratio'])}), iteration {format_count(values['iteration'])}"
        )
    if event == "infeasible":
        return f"not trained: {record.reason}"
    if event == "pruned":
        return f"stopped early: {record.reason}"
    return f"failed: {record.error}" if event == "failed" else ""
