"""Manifests from somebody else, or damaged: refused by name, or read as they are."""

import copy
import json
import math
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.prep.shards.hostile.damage import ROWS, copied, refusal_of, restated

from sizewise.training.input.batches import Split
from sizewise_core.errors import InputError
from sizewise_core.names import is_plain_name, plain_path
from sizewise_prep.shards.manifest import MOST_BYTES, Manifest
from sizewise_prep.shards.verifying import verify


def test_a_manifest_that_claims_more_rows_than_the_shard_has_is_noticed(
    prepared: Path, tmp_path: Path
) -> None:
    folder = copied(prepared, tmp_path)
    content = json.loads((folder / "manifest.json").read_text())
    for count in ("rows_in", "rows_out"):
        content[count] += 65_536 - ROWS
    content["sources"][0]["rows"] += 65_536 - ROWS
    content["splits"]["train"]["rows"] += 65_536 - ROWS
    content["splits"]["train"]["shards"][0]["rows"] = 65_536
    clicks = sum(split["click_rate"] * split["rows"] for split in content["splits"].values())
    content["click_rate"] = clicks / content["rows_out"]
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"train-00000\.arrow has fewer bytes than its rows take"):
        verify(folder)
    content["splits"]["train"]["shards"][0]["bytes"] = 65_536 * 157  # which the file has not
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"train-00000\.arrow: has .* bytes instead of"):
        Split.open(folder, "train")
    with (folder / "train-00000.arrow").open("ab") as stream:  # now it has
        stream.truncate(65_536 * 157)
    with pytest.raises(InputError, match=r"train-00000\.arrow: "):
        next(Split.open(folder, "train").stream(0, 1, 32, seed=1))
    assert any(problem.startswith("train-00000.arrow: ") for problem in verify(folder))


ABSURD: list[Any] = [
    10**30,
    -(10**30),
    2**53 + 1,
    -1,
    0,
    1,
    1.5,
    3.0,
    math.nan,
    math.inf,
    1e308,
    True,
    None,
    "",
    "7",
    "../../../x",
    "/etc/passwd",
    "a\\b",
    "train-00000.arrow",
    "\0",
    "\x1b[2J",
    "x" * 5_000,
    [],
    {},
    [[[]]],
    {"x": 1},
]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a JSON value."""
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield (*path, key)
        yield from leaves(inner, (*path, key))


def fuzz_manifests(folder: Path, seed: int, times: int) -> tuple[int, int]:
    """Load mutated manifests and read the data that they describe; how many were refused, how many read right."""
    choices, path = random.Random(seed), folder / "manifest.json"
    good = json.loads(path.read_text())
    everything = list(leaves(good))
    expected = {name: read_all(folder, name) for name in good["splits"]}
    refused = right = 0
    for _ in range(times):
        content = copy.deepcopy(good)
        for _ in range(choices.choice((1, 1, 2))):
            *way, last = choices.choice(everything)
            try:
                inner = content
                for key in way:
                    inner = inner[key]
                kind = choices.random()
                if kind < 0.8:
                    inner[last] = copy.deepcopy(choices.choice(ABSURD))
                elif kind < 0.9:
                    del inner[last]
                elif isinstance(inner, list):
                    inner.append(inner[last])
                else:
                    inner["more"] = inner[last]
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took it away
        path.write_text(json.dumps(content))
        found = refusal_of(lambda: {name: read_all(folder, name) for name in expected}, folder)
        if isinstance(found, str):
            refused += 1
            continue
        assert found == expected, content
        right += 1
    return refused, right


def read_all(folder: Path, split: str) -> bytes:
    batches = Split.open(folder, split).in_order(64)
    return b"".join(column.numpy().tobytes() for batch in batches for column in batch.tensors())


def test_mutated_manifests_are_refused_or_read_right(prepared: Path, tmp_path: Path) -> None:
    refused, right = fuzz_manifests(copied(prepared, tmp_path), 1, 300)
    assert refused > 200
    assert right > 2


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(2, 7))
def test_ten_thousand_mutated_manifests(seed: int, prepared: Path, tmp_path: Path) -> None:
    fuzz_manifests(copied(prepared, tmp_path), seed, 2_000)


@pytest.mark.parametrize(
    "name",
    [
        "../../../x",
        "/etc/x",
        "a\\b",
        "C:x",
        "x\0",
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "x" * 201,
        "-x",
        "é",
        "x\n",
    ],
)
def test_a_shards_name_is_the_plain_name_of_a_file(name: str, prepared: Path, tmp_path: Path) -> None:
    folder = copied(prepared, tmp_path)
    restated(folder, folder / "train-00000.arrow", file=name)
    with pytest.raises(InputError, match=r"manifest\.json: splits\.train.*is not") as refused:
        Manifest.load(folder)
    assert len(str(refused.value)) < 300 + len(str(folder))
    assert not is_plain_name(name)


def test_files_in_a_folder_of_their_own_stay_below_it() -> None:
    assert plain_path("vocabulary/C1.arrow") == "vocabulary/C1.arrow"
    for path in ("vocabulary/../x", "a//b", "/a", "a/", "a/b/c/d", "./a"):
        with pytest.raises(ValueError, match="is not"):
            plain_path(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "recursion limit exceeded"),
        (b'{"a":' * 100_000, "recursion limit exceeded"),
        (b'{"rows_in": ' + b"1" * 5_000 + b"}", "number out of range"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"null", "should be an object"),
    ],
)
def test_a_manifest_that_is_no_manifest_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"manifest\.json: .*{message}") as refused:
        Manifest.load(tmp_path)
    assert len(str(refused.value)) < 300


def test_a_manifest_of_hundreds_of_megabytes_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match=r"manifest\.json: is larger than 64 MiB"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.json").unlink()
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(InputError, match=r"manifest\.json: is no regular file"):
        Manifest.load(tmp_path)
