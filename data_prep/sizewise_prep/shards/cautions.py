"""Warnings about prepared data, which its user should read before training.

    for sentence in cautions(manifest): ...

They follow from the manifest, so they can be shown again at any time.
"""

from __future__ import annotations

from sizewise_core.auc_error import too_small
from sizewise_prep.raw.layout import CRITEO
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.splits import Rule

_NAMED = 4  # columns that a warning names


def cautions(manifest: Manifest) -> list[str]:
    """A sentence for each warning."""
    validation = manifest.splits.get("validation")
    small = too_small(validation.rows, validation.click_rate) if validation else ""
    return [text for text in (_inexact(manifest), _out_of_order(manifest), small) if text]


def _inexact(manifest: Manifest) -> str:
    names = (manifest.settings.layout or CRITEO).dense
    found = [(name, count) for name, count in zip(names, manifest.dense_inexact, strict=False) if count]
    if not found:
        return ""
    named = ", ".join(f"{name:.40} {count:,}" for name, count in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more columns" if len(found) > _NAMED else ""
    return (
        f"integers that float32 cannot hold exactly (beyond 16,777,216), so that different ones become one: {named}"
        f"{more}; make them `string` or `skip` in a schema file (--schema), or smaller numbers"
    )


def _out_of_order(manifest: Manifest) -> str:
    order = manifest.time_order
    if order is None or not order.out_of_order or manifest.settings.sort:
        return ""
    if Rule.parse(manifest.settings.split).by in ("time", "column", "key"):
        return ""  # where rows lie decides nothing
    share = order.out_of_order / order.rows
    return (
        f"{order.out_of_order:,} of {order.rows:,} rows ({_percent(share)}) are earlier in {order.column:.40} than a "
        "row before them, so that training, validation and test mix times; sort the log (--sort, with the time in a "
        "schema file), or give files in time order"
    )


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "below 0.1%"
