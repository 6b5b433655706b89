"""What only the data can settle: budgets written as compressions, and whether a model fits in them."""

import logging
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, Literal

from sizewise.config.fields import (
    Choices,
    Range,
    SizeRange,
    bytes_of,
    did_you_mean,
    ends_of,
    parse_size,
    within,
)
from sizewise.config.sections.train import TrainSpec
from sizewise.config.study_file import StudySpec, holds_whole_numbers
from sizewise.embedding import METHODS, full_bytes, smallest_budget
from sizewise.embedding.ids.multi_hot import SIZES
from sizewise.embedding.storage.quantization import PACKED
from sizewise.embedding.width import checked_width
from sizewise.models import MODELS, is_own
from sizewise.store.baselines import BaselineAsked
from sizewise_core.errors import InputError, shown
from sizewise_core.stores.storage import absolute, place
from sizewise_core.units import format_bytes
from sizewise_prep.raw.layout import CRITEO
from sizewise_prep.shards.manifest import Manifest

log = logging.getLogger(__name__)
_OF_TEACHERS = ("distill_epochs", "distill_learning_rate", "distill_memory_budget")
_OF_STUDENTS = ("distill_weight", "distill_temperature")
_SMALLEST = {"storage": "int2", "width": 1, "block_len": 1, "group": "pool", "fingerprint_bits": 4}
"""Values of embedding options with which models are smallest."""


def resolve(spec: StudySpec, manifest: Manifest, source: str) -> StudySpec:
    """Settle what the data decides: compressions become bytes, `data` an absolute path.

    Args:
        spec: the study as its file has it.
        manifest: of the data that it names.
        source: the study file's name, for messages.

    Returns:
        The study with a memory budget in bytes, and with the default options of today.

    Raises:
        InputError: a budget that no model fits in, a first trial outside its range, a method that this data has no
            ids for, or a teacher that does not fit.
    """
    fixed = [method for method in spec.embedding.methods if METHODS[method].needs_contiguous_ids]
    if fixed and manifest.settings.tokens != "contiguous":
        raise InputError(
            f"{source}: embedding.method: {fixed[0]} needs contiguous ids, and {spec.data} has none: prepare the "
            "data with `sizewise prep --tokens contiguous`, or use another method"
        )
    _check_few_bits(spec, source)
    _check_widths(spec, source)
    _check_teacher(spec, manifest, source)
    _check_columns(spec, manifest, source)
    _check_lists(spec, manifest, source)
    _check_model(spec, manifest, source)
    budget = _budget(spec, manifest, source)
    settled = spec.model_copy(
        update={
            "data": str(absolute(place(spec.data))),
            "search": spec.search.model_copy(update={"memory_budget": budget}),
            "baseline": _absolute(spec.baseline),
        }
    )
    settled = with_defaults(settled, "today")
    tables = full_bytes(manifest.cardinalities, spec.model.largest_dim)
    first = [_first_trial(settled, number, tables, source) for number in range(len(spec.first_trials))]
    return settled.model_copy(update={"first_trials": first})


def _absolute(asked: BaselineAsked | None) -> BaselineAsked | None:
    """A baseline whose path any process finds, in whatever folder it runs."""
    if asked is None or asked.path is None:
        return asked
    return asked.model_copy(update={"path": str(absolute(Path(asked.path)))})


def _check_lists(spec: StudySpec, manifest: Manifest, source: str) -> None:
    """Refuse what is said of lists where the data has none, or none can be made of it."""
    lists, made = len(manifest.lists), spec.embedding.multi_hot != "none"
    if made and (
        manifest.settings.tokens != "contiguous" or lists or len(manifest.cardinalities) != len(SIZES)
    ):
        raise InputError(
            f"{source}: embedding.multi_hot: makes lists of the {len(SIZES)} token columns of Criteo's logs, prepared "
            f"with `sizewise prep --tokens contiguous`, and {spec.data} is other data: leave it out"
        )
    if not lists and not made and spec.embedding.pooling != "mean":
        raise InputError(
            f"{source}: embedding.pooling: says what becomes of lists of values, and {spec.data} has none: leave it out"
        )


def _check_few_bits(spec: StudySpec, source: str) -> None:
    """Refuse what is said of numbers of few bits where there are none."""
    groups = [group for group in ends_of(spec.embedding.options.get("group", "pool")) if group != "pool"]
    storages = ends_of(spec.embedding.options.get("storage", "float32"))
    shares = [share for share in ends_of(spec.embedding.float32_share) if share]
    for name, given, says in (
        ("group", groups, "how many numbers of int4 or int2 share a scale"),
        ("float32_share", shares, "how long int4 or int2 is trained in float32"),
    ):
        if given and not set(storages) & set(PACKED):
            raise InputError(
                f"{source}: embedding.{name}: says {says}, and storage is {' or '.join(storages)}: leave it out, or "
                "set storage: int4"
            )


def _check_widths(spec: StudySpec, source: str) -> None:
    """Refuse widths that divide no dim that is searched: no trial could have them."""
    dims: Any = spec.model.dim
    for width in ends_of(spec.embedding.options.get("width")):
        if isinstance(dims, Range):
            fits = width is None or dims.high // width * width >= dims.low
        else:
            fits = width is None or any(dim % width == 0 for dim in ends_of(dims))
        if not fits:
            try:
                checked_width(width, spec.model.largest_dim)
            except InputError as error:
                raise InputError(f"{source}: {error}") from None


def _check_teacher(spec: StudySpec, manifest: Manifest, source: str) -> None:
    """Refuse teachers that the study cannot train itself, and what is said of a training that there is none of."""
    trained = [name for name in spec.train.distill_teacher if name in METHODS]
    one_size = bool(trained) and METHODS[trained[0]].has_one_size
    unused = {} if trained else dict.fromkeys(_OF_TEACHERS, "is for teachers that the study trains itself")
    if one_size:
        unused = {"distill_memory_budget": f"{trained[0]} has the bytes of all rows, no more and no less"}
    elif not spec.train.distill_teacher:
        unused |= dict.fromkeys(_OF_STUDENTS, "is for students, and there is no distill.teacher")
    for name, why in unused.items():
        if getattr(spec.train, name) != TrainSpec.settings()[name].default:
            raise InputError(f"{source}: train.{TrainSpec.written_as(name)}: {why}: leave it out")
    if not trained:
        return
    method, dim = METHODS[trained[0]], spec.model.largest_dim
    if method.needs_contiguous_ids and manifest.settings.tokens != "contiguous":
        raise InputError(
            f"{source}: train.distill.teacher: {trained[0]} needs contiguous ids, and {spec.data} has none: prepare "
            "the data with `sizewise prep --tokens contiguous`, or use another teacher, such as hot"
        )
    needed = smallest_budget(trained[0], manifest.cardinalities, dim)
    given = bytes_of(spec.train.distill_memory_budget, full_bytes(manifest.cardinalities, dim))
    if not one_size and given < needed:
        raise InputError(
            f"{source}: train.distill.memory_budget: {format_bytes(given)} is too small for {trained[0]} at dim {dim}: "
            f"give at least {needed} B"
        )


def _check_columns(spec: StudySpec, manifest: Manifest, source: str) -> None:
    """Refuse metrics by columns that the data does not have."""
    columns = list((manifest.settings.layout or CRITEO).tokens)
    for setting, column in (("gauc_by", spec.train.gauc_by), ("frequency_of", spec.train.frequency_of)):
        if column is not None and column not in columns:
            near = did_you_mean(column, columns) or f": use one of {shown(', '.join(columns))}"
            raise InputError(f"{source}: train.{setting}: the data has no token column {shown(column)}{near}")


def _check_model(spec: StudySpec, manifest: Manifest, source: str) -> None:
    """Refuse a model that needs columns which the data does not have."""
    for kind in (kind for kind in spec.model.kinds if not is_own(kind)):
        options = MODELS[kind].options.model_fields
        for name in MODELS[kind].columns:
            for value in ends_of(spec.model.options.get(name, options[name].default)):
                try:
                    column_number(kind, name, value, manifest)
                except InputError as error:
                    raise InputError(f"{source}: {error}") from None


def column_number(kind: str, name: str, value: object, manifest: Manifest) -> int:
    """The number, among the features of the data, of a column that an option of a model names.

    Args:
        kind: the model.
        name: of the option, one of the model's `columns`.
        value: a column's name or number; None for the only column of lists.
        manifest: of the data.

    Raises:
        InputError: there is no such column.
    """
    layout, wanted = manifest.layout, MODELS[kind].columns[name]
    known = layout.token_lists if wanted == "list" else layout.tokens
    first = len(layout.tokens) if wanted == "list" else 0
    what = "columns of lists" if wanted == "list" else "token columns"
    if not known:
        raise InputError(f"model.kind: {kind} needs {what}, and the data has none: use another model")
    if value is None and len(known) == 1:
        return first
    if value is None:
        raise InputError(f"model.{name}: name one of the data's {what}: {shown(', '.join(known))}")
    if value in known:
        return first + known.index(str(value))
    if type(value) is int and first <= value < first + len(known):
        return value
    near = did_you_mean(str(value), known) or f": use one of {shown(', '.join(known))}"
    raise InputError(f"model.{name}: {shown(str(value))} is none of the data's {what}{near}")


def with_defaults(spec: StudySpec, of: Literal["today", "0.1"]) -> StudySpec:
    """The study with those options written out whose defaults were others in version 0.1.

    A study that begins is given today's. One that is resumed and has none was begun by version 0.1, and goes on with
    those of then: its trials must be comparable.
    """
    missing: dict[str, object] = {}
    for method in spec.embedding.methods:
        options = METHODS[method].options
        for name, before in options.defaults_of_0_1.items():
            if name not in spec.embedding.options:
                missing[name] = before if of == "0.1" else options.model_fields[name].default
    return (
        spec.model_copy(update={"embedding": spec.embedding.model_copy(update=missing)}) if missing else spec
    )


def _smallest(spec: StudySpec, method: str, manifest: Manifest, source: str) -> int:
    """Bytes of the smallest model that the method has under any of the options that the study may choose.

    Combinations that need more than a suggested budget are set aside when they are suggested.
    """
    options = spec.embedding.options_of(method)
    found: list[int] = []
    refused: list[InputError] = []
    for values in product(*map(ends_of, options.values())):
        given = dict(zip(options, values, strict=True))
        try:
            found.append(smallest_budget(method, manifest.cardinalities, spec.model.largest_dim, **given))
        except InputError as error:  # options that do not go together
            refused.append(error)
    if not found:
        raise InputError(f"{source}: {refused[-1]}")
    return min(found)


def _needed(spec: StudySpec, manifest: Manifest, source: str) -> int:
    """Bytes of the smallest budget that is enough for each of a study's methods. Raises InputError as `_smallest`."""
    return max(_smallest(spec, method, manifest, source) for method in spec.embedding.methods)


def _smaller(spec: StudySpec, manifest: Manifest, needed: int) -> str:
    """What makes the smallest model of a study's methods smaller, with the bytes of that, in words."""
    found = {}
    for name, value in _SMALLEST.items():
        changed = spec.embedding.model_copy(update={name: value})
        has = any(name in METHODS[method].options.model_fields for method in changed.methods)
        if has and not (name == "storage" and spec.embedding.also_stored_as):  # which rounds float32
            found[f"{name}: {value}"] = spec.model_copy(update={"embedding": changed})
    if not isinstance(spec.model.dim, Choices | Range):
        found["dim: 1"] = spec.model_copy(update={"model": spec.model.model_copy(update={"dim": 1})})
    sizes = {}
    for option, study in found.items():
        with suppress(InputError):  # options that do not go together
            sizes[option] = _needed(study, manifest, "")
    best = [option for option in sizes if sizes[option] < needed][:2]
    return "".join(f", or set {option} (at least {sizes[option]} B)" for option in best)


def _budget(spec: StudySpec, manifest: Manifest, source: str) -> int | SizeRange | Choices:
    """The memory budget in bytes, every value of it large enough for every method."""
    tables = full_bytes(manifest.cardinalities, spec.model.largest_dim)
    needed = _needed(spec, manifest, source)
    if all(METHODS[method].has_one_size for method in spec.embedding.methods):
        return tables
    given: Any = spec.search.memory_budget
    ends = [bytes_of(parse_size(end), tables) for end in ends_of(given)]
    if isinstance(given, SizeRange):
        (low, written), (high, _) = sorted(zip(ends, ends_of(given), strict=True), key=lambda end: end[0])
        if low < needed <= high and isinstance(written, str):
            # "down to 10,000x" on small data means as far down as there is a model.
            log.warning(
                "%s: search.memory_budget: no model is smaller than %s (%sx): the search ends there",
                source,
                format_bytes(needed),
                f"{tables / needed:,.0f}",
            )
            low = needed
        ends = [low, high]
    if min(ends) < needed:
        raise InputError(
            f"{source}: search.memory_budget: {format_bytes(min(ends))} is too small for "
            f"{' and '.join(spec.embedding.methods)} at dim {spec.model.largest_dim}: "
            f"give at least {needed} B{_smaller(spec, manifest, needed)}"
        )
    if isinstance(given, SizeRange):
        return SizeRange(low=ends[0], high=ends[1], log=given.log)
    return Choices(choices=ends) if isinstance(given, Choices) else ends[0]


def _first_trial(spec: StudySpec, number: int, tables: int, source: str) -> dict[str, object]:
    """The settings of one of the first trials, within what is searched."""
    settings, where = dict(spec.first_trials[number]), f"{source}: first_trials[{number}]"
    if "memory_budget" in settings:
        try:
            size = parse_size(settings["memory_budget"])
        except ValueError as error:
            raise InputError(f"{where}.memory_budget: {error}") from None
        settings["memory_budget"] = bytes_of(size, tables)
        budgets: Any = spec.search.memory_budget
        if isinstance(size, str) and isinstance(budgets, SizeRange):
            settings["memory_budget"] = max(settings["memory_budget"], int(budgets.low))
    for field, domain in spec.searched():
        whole = isinstance(domain, Range) and holds_whole_numbers(field, domain)
        if field in settings and whole and isinstance(settings[field], float):
            raise InputError(f"{where}.{field}: must be a whole number, not {settings[field]}")
        if field in settings and not within(settings[field], domain):
            raise InputError(
                f"{where}.{field}: {settings[field]} is outside what the study searches "
                f"({', '.join(str(end) for end in ends_of(domain))}): widen the search or drop it"
            )
    return settings
