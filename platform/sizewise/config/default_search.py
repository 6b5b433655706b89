"""What a study searches whose file says nothing of `embedding`: where numbers live, their bits, the width of vectors.

Which method is best depends on the size that is asked for: a shared pool, or tables, where bytes are plenty; rows of
their own for frequent values, in few bits, where they are scarce. So the method, the storage and the width are searched
beside the memory budget, and the first trials are a ladder over the sizes with what suits each. A combination that is
larger than a suggested budget is set aside, untrained, and the sampler suggests another one.

A file that has an `embedding` section, even an empty one, means what it says: `robe` in float32 unless it names others.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sizewise.config.fields import COMPRESSION, Choices, Range, SizeRange, ends_of, form_of, within
from sizewise.config.sections.search import SearchSpec

METHODS = ["robe", "hash", "hot"]
STORAGES = ["float32", "int8", "int4"]
NARROW = (1, 2, 4, 8, 16)  # and the model's dim
LADDER: tuple[tuple[str, str, str, int, int], ...] = (  # size, method, storage, width (0: dim), epochs
    ("1x", "robe", "float32", 0, 1),
    ("10000x", "hot", "int4", 1, 3),
    ("1000x", "hot", "int4", 2, 2),
    ("100x", "hot", "int8", 8, 1),
    ("10x", "robe", "float32", 0, 1),
)
LEARNING_RATE = 0.02


def with_default_search(study: Mapping[str, Any], dim: object) -> Mapping[str, Any]:
    """A study file's content with what it searches by default.

    Args:
        study: the file's content, not checked yet; that with an `embedding` section is returned as it is.
        dim: the model's default length of a vector.
    """
    if "embedding" in study:
        return study
    model = study.get("model")
    widths = _widths(model.get("dim", dim) if isinstance(model, Mapping) else getattr(model, "dim", dim))
    embedding: dict[str, Any] = {"method": {"choices": METHODS}, "storage": {"choices": STORAGES}}
    if widths:
        embedding["width"] = {"choices": widths}
    added: dict[str, Any] = {"embedding": embedding}
    if "first_trials" not in study and study.get("sampler") != "grid":
        train = study.get("train")
        student = bool(isinstance(train, Mapping) and train.get("distill"))  # which takes more epochs
        rungs = _ladder(study.get("search", {}), widths)
        added["first_trials"] = [
            {name: value for name, value in rung.items() if not (student and name == "epochs")}
            for rung in rungs
        ]
    return {**study, **added}


def _widths(dim: object) -> list[int]:
    """Widths that suit every length of a vector that is searched; none where they cannot be listed."""
    if form_of(dim) == "range":
        return []
    dims = dim["choices"] if isinstance(dim, Mapping) else ends_of(dim)
    if not isinstance(dims, list) or not all(type(one) is int and one > 0 for one in dims):
        return []  # what is wrong with them is said by the model's section
    return [width for width in sorted({*NARROW, min(dims)}) if all(one % width == 0 for one in dims)]


def _ladder(search: object, widths: list[int]) -> Iterator[dict[str, Any]]:
    """First trials at those sizes that are searched; what else is not searched, or not there, is left out."""
    try:
        searched = search if isinstance(search, SearchSpec) else SearchSpec.model_validate(search)
    except ValueError:
        return  # whose message comes with the section
    sizes: Any = searched.memory_budget
    if not isinstance(sizes, SizeRange):
        return
    ends = [COMPRESSION.fullmatch(end) if isinstance(end, str) else None for end in (sizes.low, sizes.high)]
    if not (ends[0] and ends[1]):
        return
    least, most = sorted(_times(str(end)) for end in (sizes.low, sizes.high))
    for size, method, storage, width, epochs in LADDER:
        if not least <= _times(size) <= most:
            continue
        rung: dict[str, Any] = {"memory_budget": size, "method": method, "storage": storage}
        wide = width or max(widths, default=0)
        if wide in widths:
            rung["width"] = wide
        for name, value in (("learning_rate", LEARNING_RATE), ("epochs", epochs)):
            domain: Any = getattr(searched, name)
            if isinstance(domain, Range | Choices) and within(value, domain) and ends_of(domain)[1:]:
                rung[name] = value
        yield rung


def _times(size: str) -> float:
    return float(size.strip().removesuffix("x").replace(",", "").replace("_", ""))
