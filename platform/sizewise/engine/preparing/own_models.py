"""Models of a user's own, before anything starts: found, tried at the ends of their options, and kept for workers."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.config import StudySpec
from sizewise.config.fields import ends_of
from sizewise.config.sections.model import WIDTHS
from sizewise.embedding import build, smallest_budget
from sizewise.embedding.base import MAX_ID
from sizewise.models import is_own
from sizewise.store import code
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place
from sizewise_prep.shards.manifest import Manifest

if TYPE_CHECKING:
    from sizewise.models.dry_step import Conditions

log = logging.getLogger(__name__)
METHOD = "hash"  # the embedding of a dry step: any would do, and this one is quick


def of_new_study(spec: StudySpec, manifest: Manifest, source: str) -> bytes | None:
    """Try out a study's own models; what the study is to keep of their code, None where they are installed.

    Args:
        spec: the study, resolved.
        manifest: of its data.
        source: the study file, beside which their modules may lie.

    Raises:
        InputError: one of them cannot be imported, or a trial could not train it.
    """
    kinds = [kind for kind in spec.model.kinds if is_own(kind)]
    if not kinds:
        return None
    if Path(source).is_file():
        code.search(Path(source).parent)
        code.use(Path(source).parent)  # where that is another study's folder
    _try_out(spec, manifest, source)
    return code.packed(kind.partition(":")[0] for kind in kinds)


def of_resumed_study(spec: StudySpec, manifest: Manifest, folder: Place) -> None:
    """The same for a study that began elsewhere, or earlier, with the code that it has kept.

    Args:
        spec: the study.
        manifest: of its data.
        folder: the study's.

    Raises:
        InputError: as `of_new_study`.
    """
    if any(map(is_own, spec.model.kinds)):
        code.use(folder)
        _try_out(spec, manifest, str(folder))


def _try_out(spec: StudySpec, manifest: Manifest, source: str) -> None:
    from sizewise.models.dry_step import dry_step  # few studies have models of their own

    said, conditions = dict[str, None](), _conditions(spec, manifest)
    for kind in filter(is_own, spec.model.kinds):
        for dim, options in _extremes(spec, kind):
            budget = smallest_budget(METHOD, manifest.cardinalities, dim) * 64
            embedding = build(METHOD, manifest.cardinalities, dim, budget, spec.seed)
            try:
                notes = dry_step(kind, embedding, len(manifest.dense_missing), options, conditions)
            except InputError as error:
                raise InputError(f"{source}: {error}") from None
            said |= dict.fromkeys(notes)
    for note in said:
        log.warning("%s", note)


def _conditions(spec: StudySpec, manifest: Manifest) -> "Conditions":
    """What rows the study's trials get."""
    from sizewise.models.dry_step import ROWS, Conditions

    numbered = manifest.settings.tokens == "contiguous"
    largest = [size - 1 if numbered else MAX_ID for size in manifest.cardinalities]
    shortest, workers = ROWS[-1], spec.resources.workers
    for batch in ends_of(spec.train.batch_size):
        share = manifest.splits["train"].rows % batch // workers
        if manifest.splits["train"].rows % batch:
            shortest = min(shortest, share, max(share // spec.train.accumulate, 1))
    return Conditions(
        lists=len(manifest.lists),
        largest_ids=largest,
        signed=manifest.settings.dense_is_log,
        shortest=shortest,
        workers=workers,
    )


def _extremes(spec: StudySpec, kind: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The model with the largest or last value of everything that is searched, then with each other extreme of one."""
    widths = {name: getattr(spec.model, name) for name in WIDTHS if spec.model.has(kind, name)}
    fields = {**spec.model.options_of(kind), **{name: value for name, value in widths.items() if value != []}}
    last = {name: ends_of(field)[-1] for name, field in fields.items()}
    yield spec.model.largest_dim, last
    for dim in ends_of(spec.model.dim):
        if dim != spec.model.largest_dim:
            yield dim, last
    for name, field in fields.items():
        for end in ends_of(field)[:-1]:
            yield spec.model.largest_dim, {**last, name: end}
