"""Widths of vectors that a study may search: those that divide a dim that it searches."""

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
