"""The steps of a preparation after the first, in their order: from a log that is read to shards and their manifest.

    manifest = yield from make(folder, settings, log, rule, workers, memory)

With raw tokens, shards are written and their distinct tokens counted; with contiguous ids tokens are counted and
numbered, and then the shards are written. Each step does only what earlier runs have not done.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.jobs import assembly, fitting, merging, parts
from sizewise_prep.pipeline.jobs.assembly import Made, ShardJob, shard_jobs, sorted_jobs
from sizewise_prep.pipeline.jobs.fitting import EdgesJob, FitJob, Found
from sizewise_prep.pipeline.jobs.merging import Merged, MergeJob
from sizewise_prep.pipeline.steps.log import Log
from sizewise_prep.pipeline.steps.progress import Progress
from sizewise_prep.pipeline.workers import Workers
from sizewise_prep.raw.layout import CRITEO
from sizewise_prep.raw.options import Fitted
from sizewise_prep.shards.files import list_names
from sizewise_prep.shards.manifest import ListFigures, Manifest, Quarantine, Settings, Shard, Split
from sizewise_prep.shards.splits import Rule
from sizewise_prep.shards.values import vocabulary
from sizewise_prep.shards.values.counts import joined
from sizewise_prep.shards.values.distinct import BYTES_PER_WORD, Run
from sizewise_prep.shards.values.vocabulary import Numbered, NumberJob

_MERGE_MEMORY = 300 * 10**6  # bytes that a worker takes to merge, without its words
_WORDS_OF_A_RUN = 1 << 12  # that are merged at a time, if they are more than this with few runs:
_WORDS = 1 << 20

Steps = Generator[Progress, None, Manifest]
Job = TypeVar("Job", ShardJob, FitJob, NumberJob, MergeJob)
Done = TypeVar("Done", Made, Found, Numbered, Merged)


def make(folder: Path, settings: Settings, log: Log, rule: Rule, workers: Workers, memory: int) -> Steps:
    """Cut the log's rows into shards.

    Args:
        folder: the working folder.
        settings: of the preparation.
        log: read to its end.
        rule: how the log is split.
        workers: they do the jobs.
        memory: bytes that all workers may take together.

    Returns:
        The manifest, as the generator's value.

    Raises:
        InputError: too many rows are bad, or too few for the rule.
    """
    return (yield from _ShardSteps(folder, settings, log, workers, memory).steps(rule))


class _ShardSteps:
    def __init__(self, folder: Path, settings: Settings, log: Log, workers: Workers, memory: int) -> None:
        self._folder, self._settings, self._log = folder, settings, log
        self._workers, self._memory = workers, memory
        self._layout = settings.layout or CRITEO
        self._fitted: Fitted | None = None

    def steps(self, rule: Rule) -> Steps:
        quarantine = self._log.quarantine()
        by_split = self._log.rows_by_split()
        sizes = rule.sizes(self._log.rows_by_file()) if by_split is None else rule.sizes_of(by_split)
        if self._settings.sort:
            yield from self._log.restore_times()
            cuts = self._log.sorted_cuts(sizes, self._settings.shard_rows)
            jobs = sorted_jobs(self._folder, self._settings, cuts, sizes)
        else:
            jobs = shard_jobs(self._folder, self._settings, self._log.cuts(), sizes)
        self._fitted = yield from self._fit(jobs)
        jobs = [replace(job, layout=job.layout.with_fitted(self._fitted)) for job in jobs]
        if self._settings.tokens == "contiguous":
            figures = yield from self._make([replace(job, counting=True) for job in jobs], "count")
            numbered = yield from self._number([one.run_in(self._folder) for one in figures])
            begins = _begins(figures)
            jobs = [replace(job, ids_begin=begin) for job, begin in zip(jobs, begins, strict=True)]
            made = yield from self._make(jobs, "shards")
            files = [column.vocabulary for column in numbered]
            cardinalities = [file.rows + 1 for file in files]
            counts = [column.counts for column in numbered]
        else:
            made = figures = yield from self._make(jobs, "shards")
            merged = yield from self._merge([one.run_in(self._folder) for one in figures])
            files, cardinalities = [], [max(1, column.values) for column in merged]  # lists may all be empty
            counts = [column.counts for column in merged]
        counted = joined(self._folder, [(self._folder / column.file, column.rows) for column in counts])
        return self._manifest(quarantine, sizes, made, figures, files, counted, cardinalities)

    def _fit(self, jobs: list[ShardJob]) -> Generator[Progress, None, Fitted | None]:
        """What the training rows say of columns; None where the layout asks for nothing."""
        buckets, standardized = self._layout.to_fit
        if not buckets and not standardized:
            return None
        training = [
            FitJob(self._folder, job.name, job.cuts, self._layout)
            for job in jobs
            if job.name.startswith(assembly.TRAINING)
        ]
        done = {one.name: one for one in (yield from self._intact(training, fitting.check))}
        left = [job for job in training if job.name not in done]
        yield from self._log.restore({cut.part.file for job in left for cut in job.cuts})
        for found in self._workers.run(fitting.fit, left, self._shard_memory()):
            if found is not None:
                done[found.name] = found
            yield self._log.progress("fit", len(done), len(training))
        every = [done[job.name] for job in training]
        columns = fitting.cut_columns(self._layout)
        cut = [
            EdgesJob(
                name,
                columns.index(self._layout.bucketed[name].of),
                quantiles,
                sum(one.known[columns.index(self._layout.bucketed[name].of)] for one in every),
                tuple(one.run_in(self._folder) for one in every),
                self._words(len(every)),
            )
            for name, quantiles in buckets.items()
        ]
        edges = dict[str, tuple[float, ...]]()
        for of_bucket in self._workers.run(fitting.edges, cut, self._memory):
            if of_bucket is not None:
                edges |= [of_bucket]
            yield self._log.progress("fit", len(edges), len(cut))
        moments = {name: fitting.moments(every, column) for column, name in enumerate(standardized)}
        return Fitted(edges={name: edges[name] for name in buckets}, moments=moments)

    def _weights(self, sizes: dict[str, int], made: list[Made]) -> dict[str, float] | None:
        """The mean weight of each split's rows. Raises InputError where none of a split counts."""
        if self._layout.weight is None:
            return None
        sums = {
            name: math.fsum(one.weight or 0 for one in made if one.name.split("-")[0] == name)
            for name in sizes
        }
        for name, size in sizes.items():
            if size and not sums[name]:
                raise InputError(
                    f"column {self._layout.weight:.40}: the weights of all {name} rows are 0: correct them, or make it "
                    "`skip`"
                )
        return {name: sums[name] / size if size else 0.0 for name, size in sizes.items()}

    def _shard_memory(self, list_bytes: int = 0) -> int:
        """Bytes that a worker takes to hold a shard's rows, `list_bytes` of which are their lists."""
        row_bytes = 1 + 4 * len(self._layout.numbers) + 4 * len(self._layout.tokens) + 8 * self._settings.sort
        return assembly.memory(self._settings.shard_rows, row_bytes, list_bytes)

    def _make(
        self, jobs: list[ShardJob], step: Literal["count", "shards"]
    ) -> Generator[Progress, None, list[Made]]:
        """Do the jobs that are not done; results in the jobs' order. A part's file is deleted after its last use."""
        made = {one.name: one for one in (yield from self._intact(jobs, assembly.check))}
        left = [job for job in jobs if job.name not in made]
        yield from self._log.restore({cut.part.file for job in left for cut in job.cuts})
        uses = Counter(cut.part.file for job in left for cut in job.cuts)
        by_name = {job.name: job for job in left}
        memory = self._shard_memory(max((job.list_bytes for job in left), default=0))
        for one in self._workers.run(assembly.make, left, memory):
            if one is not None:
                made[one.name] = one
                for cut in by_name[one.name].cuts if step == "shards" else ():
                    uses[cut.part.file] -= 1
                    if not uses[cut.part.file]:
                        (self._folder / cut.part.file).unlink(missing_ok=True)
            yield self._log.progress(step, len(made), len(jobs))
        return [made[job.name] for job in jobs]

    def _intact(
        self, jobs: Sequence[Job], check: Callable[[Job], Iterator[Done | None]]
    ) -> Generator[Progress, None, list[Done]]:
        """The intact results of jobs that earlier runs have done."""
        started = [job for job in jobs if job.record_path.exists()]
        found: list[Done] = []
        for one in self._workers.run(check, started, parts.MEMORY):
            if one is not None:
                found.append(one)
            yield self._log.progress("check", len(found), len(started))
        return found

    def _number(self, runs: list[Run]) -> Generator[Progress, None, list[Numbered]]:
        jobs = [
            NumberJob(self._folder, column, tuple(runs), self._settings.min_count, self._words(len(runs)))
            for column in range(len(self._layout.features))
        ]
        done = {one.column: one for one in (yield from self._intact(jobs, vocabulary.check))}
        left = [job for job in jobs if job.column not in done]
        for numbered in self._workers.run(vocabulary.number, left, self._memory):
            if numbered is not None:
                done[numbered.column] = numbered
            yield self._log.progress("number", len(done), len(jobs))
        return [done[job.column] for job in jobs]

    def _merge(self, runs: list[Run]) -> Generator[Progress, None, list[Merged]]:
        jobs = [
            MergeJob(self._folder, column, tuple(runs), self._words(len(runs)))
            for column in range(len(self._layout.features))
        ]
        done = {one.column: one for one in (yield from self._intact(jobs, merging.check))}
        left = [job for job in jobs if job.column not in done]
        for merged in self._workers.run(merging.merge, left, self._memory):
            if merged is not None:
                done[merged.column] = merged
            yield self._log.progress("distinct", len(done), len(jobs))
        return [done[job.column] for job in jobs]

    def _words(self, runs: int) -> int:
        """How many words of so many runs a worker may merge at a time: as many as save time, as far as they fit.

        Beside its words, a range costs a few small reads of every run. Up to 256 runs the memory is the same.
        """
        fitting = (self._workers.share(self._memory) - _MERGE_MEMORY) // BYTES_PER_WORD
        return max(_WORDS, min(fitting, _WORDS_OF_A_RUN * runs))

    def _manifest(
        self,
        quarantine: Quarantine,
        sizes: dict[str, int],
        made: list[Made],
        figures: list[Made],
        vocabulary: list[Shard],
        counts: Shard,
        cardinalities: list[int],
    ) -> Manifest:
        rows, splits = sum(sizes.values()), {}
        clicks = Counter[str]()
        for one in made:
            clicks[one.name.split("-")[0]] += one.clicks
        for name, size in sizes.items():
            shards = [one.shard for one in made if one.shard and one.name.split("-")[0] == name]
            splits[name] = Split(rows=size, click_rate=clicks[name] / size if size else None, shards=shards)
        dense, tokens = (
            [sum(column) / rows for column in zip(*(getattr(one, kind) for one in figures), strict=True)]
            for kind in ("dense_missing", "token_missing")
        )
        sources, bad = self._log.sources(), sum(quarantine.reasons.values())
        return Manifest(
            settings=self._settings,
            sources=sources,
            rows_in=sum(source.rows for source in sources),
            rows_out=rows,
            rows_quarantined=bad,
            click_rate=clicks.total() / rows,
            splits=splits,
            cardinalities=cardinalities,
            dense_missing=dense,
            token_missing=tokens,
            quarantine=quarantine,
            vocabulary=vocabulary,
            counts=counts,
            dense_inexact=self._log.inexact(),
            time_order=self._log.time_order(),
            weights=self._weights(sizes, made),
            fitted=self._fitted,
            lists=self._lists(figures, rows),
        )

    def _lists(self, figures: list[Made], rows: int) -> list[ListFigures]:
        """What the manifest says of each column of lists."""
        names = self._layout.token_lists
        made = []
        for place, (name, column, cut) in enumerate(
            zip(names, list_names(names), self._log.cut_values() or [0] * len(names), strict=True)
        ):
            values = sum(one.list_values[place] for one in figures)
            longest = max(one.longest[place] for one in figures)
            made.append(
                ListFigures(
                    name=name,
                    column=column,
                    values=values,
                    longest=longest,
                    mean_length=values / rows,
                    cut=cut,
                )
            )
        return made


def _begins(figures: Sequence[Made]) -> list[tuple[int, ...]]:
    """For each shard and column, how many words the runs of the shards before it hold."""
    counts = np.array([np.diff(one.run_starts) for one in figures], np.int64)  # (shards, columns)
    return [tuple(begin) for begin in (np.cumsum(counts, axis=0) - counts).tolist()]
