"""Values of settings that no trial could have, or no record of one could hold, refused before there is a study."""

from pathlib import Path

import pytest

from sizewise.config import load, resolve
from sizewise.training.building import check_counts
from sizewise_core.errors import InputError
from sizewise_prep.shards.manifest import Manifest


@pytest.mark.parametrize("method", ["hash", "hot", "robe"])
def test_a_width_that_no_trial_could_have_is_refused(shards: Path, tmp_path: Path, method: str) -> None:
    manifest, path = Manifest.load(shards), tmp_path / "study.yaml"

    def resolved(width: str, dim: str = "8") -> None:
        path.write_text(
            f"name: a\ndata: {shards}\nmodel: {{dim: {dim}, bottom_mlp: [8]}}\n"
            f"embedding: {{method: {method}, width: {width}}}\n"
        )
        spec = resolve(load(path), manifest, str(path))
        check_counts(spec, manifest)

    for width in ("3", "{choices: [1, 3]}", "{choices: [3, 1]}", "{low: 1, high: 3}"):
        with pytest.raises(InputError, match=r"embedding\.width 3 does not divide dim 8: set width: 2"):
            resolved(width)
    with pytest.raises(InputError, match="width 16 does not divide dim 8: set width: 8"):
        resolved("{choices: [8, 16]}")
    resolved("{choices: [1, 8]}")
    resolved("{low: 1, high: 8}")
    resolved("{choices: [1, 16]}", "{choices: [8, 16]}")
    resolved("{choices: [4, 3]}", "{choices: [9, 16]}")
    with pytest.raises(InputError, match="width 5 does not divide dim 16"):
        resolved("{choices: [1, 5]}", "{choices: [8, 16]}")
    with pytest.raises(InputError, match="width 5 does not divide dim 9"):
        resolved("{choices: [1, 5]}", "{low: 6, high: 9}")


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("search: {learning_rate: 1.0e+30}", "search.learning_rate: '1e.30'"),
        ("search: {learning_rate: {low: 0.1, high: 1.0e+19}}", "search.learning_rate: '1e.19'"),
        ("train: {distill: {teacher: full, learning_rate: 1.0e+38}}", "train.distill.learning_rate: '1e.38'"),
        (
            "embedding: {method: hot, min_count: 9223372036854775808}",
            "embedding.min_count: '9223372036854775808'",
        ),
    ],
)
def test_a_number_that_no_table_can_hold_is_refused(tmp_path: Path, section: str, field: str) -> None:
    """Else trials are trained whose records are not read."""
    path = tmp_path / "study.yaml"
    path.write_text(f"name: a\ndata: d\n{section}\n")
    with pytest.raises(InputError, match=f"{field} is more than tables of trials can hold: give a smaller"):
        load(path)
    path.write_text("name: a\ndata: d\nsearch: {learning_rate: 1.0e+18}\n")
    load(path)
