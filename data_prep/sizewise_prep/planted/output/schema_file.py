"""The schema file beside planted logs that are not plainly in Criteo's layout, by which `sizewise prep` reads them."""

from __future__ import annotations

from collections.abc import Iterator

from sizewise_prep.planted.columns.crosses import cross_names
from sizewise_prep.planted.columns.numbers import Numbers
from sizewise_prep.planted.output import BETWEEN, Format
from sizewise_prep.planted.world import World

NAME = "schema.yaml"


def schema_text(world: World, form: Format) -> str | None:
    """The schema file of a world's logs; None where Criteo's layout, which needs none, is all there is to say.

    Args:
        world: whose logs they are.
        form: in which they are written.
    """
    return "\n".join(_lines(world, form)) + "\n" if world.dials.adds or form == "parquet" else None


def _lines(world: World, form: Format) -> Iterator[str]:
    dials, text = world.dials, form == "text"
    token = "hex" if text else "decimal"
    tokens = f'{{kind: tokens, separator: "{BETWEEN}", of: hex}}' if text else "{kind: tokens, of: decimal}"
    yield "# The columns of these planted logs: sizewise prep day_* --schema schema.yaml --out SHARDS"
    yield "# truth.json says how each moves a click."
    if text and (dials.numbers or dials.lists or dials.users):
        yield "header: true"
    yield "columns:"
    yield "  label: label"
    yield from (f"  I{number + 1}: integer" for number in range(world.integers.count))
    yield from (f"  C{number + 1}: {token}" for number in range(len(world.columns)))
    for part in world.parts:
        if isinstance(part, Numbers):
            yield from (
                f"  {column.name}: {{kind: number, transform: standardize}}" for column in part.columns
            )
    yield from (f"  L{number + 1}: {tokens}" for number in range(dials.lists))
    if dials.users:
        yield from (f"  user: {token}", f"  item: {token}", f"  history: {tokens}", "  time: time")
    if dials.crosses:
        yield "# Without these lines, models have to find by themselves which combinations matter."
        yield "crosses:"
        yield from (f"  {name}: [{', '.join(pair)}]" for name, pair in cross_names(dials.crosses).items())
