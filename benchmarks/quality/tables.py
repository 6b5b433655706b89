"""Test AUC of what validation chose, over seeds, with paired intervals; beside the goals."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.quality.arms import POOLS, RATIOS
from benchmarks.scale.table import Record, Result, reached
from scipy.stats import t as student

# (compression, with a teacher) -> AUC to reach with full tables from labels at 0.7530 (real rows) and 0.7460 (planted)
GOALS = {
    "real": {
        (100, False): 0.7530, (1_000, False): 0.7505, (10_000, False): 0.7410,
        (100, True): 0.7558, (1_000, True): 0.7550, (10_000, True): 0.7500,
    },
    "planted": {
        (100, False): 0.7438, (1_000, False): 0.7420, (10_000, False): 0.7365,
        (100, True): 0.7480, (1_000, True): 0.7475, (10_000, True): 0.7420,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """What validation chose of an arm's settings: one result a seed, by seed."""

    name: str
    results: dict[int, Result]
    epochs: float

    @property
    def setting(self) -> str:
        """Passes and learning rate."""
        return f"{self.epochs:g} at {next(iter(self.results.values())).rate:g}"

    @property
    def test(self) -> list[float]:
        """Test AUC of each seed."""
        return [result.test_auc for result in self.results.values()]

    @property
    def validation(self) -> float:
        """Mean validation AUC."""
        return statistics.mean(result.validation_auc for result in self.results.values())


def interval(values: list[float], signed: bool = False) -> str:
    """Mean and the half width of its 95 % interval."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):+.4f}" if signed else f"{statistics.mean(values):.4f}"
    if len(values) == 1:
        return f"{mean} (1 seed)"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {half:.4f}"


def settings(name: str, results: Iterable[Result]) -> list[Chosen]:
    """Results of one arm by setting: how long trained, at what learning rate, over how long it falls."""
    groups: dict[tuple[str, float], dict[int, Result]] = {}
    for result in results:
        if result.state == "cut short" or (result.falling and result.state != "end"):
            continue  # a rate that has not fallen to zero yet is no setting that anybody would choose
        key = result.run.rpartition(" ")[0], result.epoch
        groups.setdefault(key, {})[result.seed] = result
    return [Chosen(name, dict(sorted(found.items())), epochs) for (_, epochs), found in groups.items()]


def best(candidates: Iterable[Chosen]) -> Chosen | None:
    """That of the highest mean validation AUC, among those that have the most seeds."""
    listed = list(candidates)
    seeds = max((len(chosen.results) for chosen in listed), default=0)
    return max((c for c in listed if len(c.results) == seeds), key=lambda c: c.validation, default=None)


def chosen_of(record: Record, name: str, ratio: int, taught: bool) -> Chosen | None:
    """Validation's choice for an arm at a compression."""
    wanted = [
        result
        for result in record.results
        if result.ratio == ratio and bool(result.teachers) == taught and _is(result, name)
    ]
    return best(settings(name, wanted))


def _is(result: Result, name: str) -> bool:
    if name == "full tables":
        return result.name == "full"
    return result.name == POOLS[name][result.ratio].name if result.ratio in RATIOS else False


def written(record: Record, data: str, heading: list[str]) -> str:
    """All tables of one data set."""
    lines = [*heading, ""]
    full = chosen_of(record, "full tables", 1, taught=False)
    lines += [
        "| method | compression | bytes | labels only | against full | epochs "
        "| with a teacher | against full | epochs |",
        "| --- " * 9 + "|",
    ]
    for ratio in (1, *RATIOS):
        for name in ("full tables",) if ratio == 1 else POOLS:
            pair = [chosen_of(record, name, ratio, taught) for taught in (False, True)]
            if not any(pair):
                continue
            size = next(iter(next(c for c in pair if c).results.values())).shipped_bytes
            cells = [name, f"{ratio:,}x" if ratio > 1 else "-", f"{size:,}"]
            for chosen in pair:
                cells += _cells(chosen, full)
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_reached(record, data, full), "", *_iterations(record, full)]
    return "\n".join(lines) + "\n"


def pooled(records: dict[str, Record]) -> str:
    """One method a size, chosen on the validation rows of all logs and seeds together, and what each log's test says.

    Args:
        records: by kind of log, `real` and `planted` (whose goals are known), or any other name.
    """
    lines = [
        "| compression | | best by pooled validation | " + " | ".join(f"{name}, goal" for name in records)
    ]
    lines[0] += " | next best, behind by |"
    lines.append("| --- " * (4 + len(records)) + "|")
    for taught in (False, True):
        for ratio in RATIOS:
            found = {
                name: chosen
                for name in POOLS
                if len(chosen := _of_all(records, name, ratio, taught)) == len(records)
            }
            if not found:
                continue
            ranked = sorted(found, key=lambda name: -_pooled_validation(found[name]))
            cells = [f"{ratio:,}x", "with a teacher" if taught else "labels only", ranked[0]]
            for log, chosen in zip(records, found[ranked[0]], strict=True):
                goal = GOALS.get(log, {}).get((ratio, taught))
                reached = (
                    ""
                    if goal is None
                    else f", {goal:.4f}: " + ("yes" if statistics.mean(chosen.test) >= goal else "no")
                )
                cells.append(interval(chosen.test) + reached)
            behind = [
                f"{name}, {_pooled_validation(found[ranked[0]]) - _pooled_validation(found[name]):.4f}"
                for name in ranked[1:2]
            ]
            lines.append("| " + " | ".join([*cells, *(behind or ["-"])]) + " |")
    return "\n".join(lines) + "\n"


def _of_all(records: dict[str, Record], name: str, ratio: int, taught: bool) -> list[Chosen]:
    return [c for record in records.values() if (c := chosen_of(record, name, ratio, taught))]


def _pooled_validation(chosen: list[Chosen]) -> float:
    return statistics.mean(one.validation for one in chosen)


def _cells(chosen: Chosen | None, full: Chosen | None) -> list[str]:
    if chosen is None:
        return ["-", "-", "-"]
    return [interval(chosen.test), interval(_differences(chosen, full), signed=True), chosen.setting]


def _differences(chosen: Chosen, full: Chosen | None) -> list[float]:
    """Test AUC less that of full tables of the same seed."""
    pairs = ((result, full.results.get(seed)) for seed, result in chosen.results.items()) if full else ()
    return [mine.test_auc - theirs.test_auc for mine, theirs in pairs if theirs]


def _reached(record: Record, data: str, full: Chosen | None) -> list[str]:
    goals = GOALS.get(data, {})
    lines = [
        "| compression | | best by validation | epochs | test AUC | against full | goal |",
        "| --- " * 7 + "|",
    ]
    for taught in (False, True):
        for ratio in RATIOS:
            found = best(c for c in (chosen_of(record, name, ratio, taught) for name in POOLS) if c)
            if found is None:
                continue
            goal = goals.get((ratio, taught))
            verdict = (
                "-"
                if goal is None
                else f"{goal:.4f}: " + ("yes" if statistics.mean(found.test) >= goal else "no")
            )
            cells = [
                f"{ratio:,}x", "with a teacher" if taught else "labels only", found.name, found.setting,
                interval(found.test), interval(_differences(found, full), signed=True), verdict,
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _iterations(record: Record, full: Chosen | None) -> list[str]:
    """Iterations to the validation AUC of full tables, as a multiple of theirs."""
    if full is None:
        return []
    teachers = [r for r in record.results if r.name.startswith("frequent") and r.state == "end"]
    taken = sum(r.iterations for r in teachers)
    lines = [
        "Iterations to the validation AUC that full tables of the same seed end with, as a multiple of theirs"
        f" ({statistics.mean(r.iterations for r in full.results.values()):,.0f}); the teachers take {taken:,} more.",
        "",
        "| method | compression | labels only | with a teacher | teachers counted |",
        "| --- " * 5 + "|",
    ]
    for ratio in RATIOS:
        for name in POOLS:
            cells = []
            for taught in (False, True):
                chosen = chosen_of(record, name, ratio, taught)
                multiples = _multiples(record, chosen, full, 0) if chosen else []
                cells.append(_multiple(multiples))
                if taught:
                    cells.append(_multiple(_multiples(record, chosen, full, taken) if chosen else []))
            lines.append(f"| {name} | {ratio:,}x | " + " | ".join(cells) + " |")
    return lines


def _multiples(record: Record, chosen: Chosen, full: Chosen, more: int) -> list[float]:
    found = []
    for seed, result in chosen.results.items():
        goal = full.results.get(seed)
        if goal:
            curve = [e for e in record.curve(result.run) if e.iterations <= result.iterations]
            at = reached(curve, goal.validation_auc)
            found.append(math.inf if at is None else (at + more) / goal.iterations)
    return found


def _multiple(values: list[float]) -> str:
    """The median; "never" where most seeds do not get there."""
    if not values:
        return "-"
    middle = statistics.median_high(values)
    return "never" if math.isinf(middle) else f"{middle:.2f}x"
