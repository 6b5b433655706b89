"""Study files: every mistake is named with its file, line, field and fix."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sizewise.config import Choices, SizeRange, from_text, load, resolve, to_text, with_defaults
from sizewise.embedding import full_bytes, smallest_budget
from sizewise_core.errors import InputError
from sizewise_prep.shards.manifest import Manifest

STUDY = """\
name: example            # line 1
data: {data}
embedding: {{method: robe, block_len: 16, align: 4}}
search:
  memory_budget: {{low: 10000x, high: 1x, log: true}}
  learning_rate: {{low: 3e-3, high: 0.3, log: true}}
  epochs: {{low: 1, high: 4}}
trials: 12
"""


@pytest.fixture
def study(tmp_path: Path, shards: Path) -> Path:
    path = tmp_path / "example.yaml"
    path.write_text(STUDY.format(data=shards))
    return path


def test_a_resolved_spec_survives_its_file(study: Path, shards: Path) -> None:
    spec = resolve(load(study, {"first_trials": [{"memory_budget": "10x"}]}), Manifest.load(shards), "x")
    assert from_text(to_text(spec), Path("study.yaml")) == spec


def test_the_pooling_of_lists_is_written_only_where_it_is_asked_for(study: Path) -> None:
    assert b"pooling" not in to_text(load(study))
    asked = load(study, {"embedding.pooling": {"choices": ["mean", "sum"]}})
    assert "pooling" in [name for name, _ in asked.searched()]
    assert from_text(to_text(asked), study) == asked
    with pytest.raises(InputError, match=r"embedding.pooling: .*'mean' or 'sum'"):
        load(study, {"embedding.pooling": "max"})


def test_a_changed_study_file_of_a_study_is_noticed_unless_its_seal_was_taken_off(study: Path) -> None:
    text, path = to_text(load(study)), Path("runs/s/study.yaml")
    edited = text.replace(b"trials: 12", b"trials: 13")
    with pytest.raises(InputError, match=r"study.yaml: is not what was written.*cp runs/s/study.before"):
        from_text(edited, path)
    assert from_text(edited.rpartition(b"# crc32")[0], path).trials == 13
    for bit in range(0, 8 * len(text), 5):  # and a disk's mistake never passes for another study
        data = bytearray(text)
        data[bit // 8] ^= 1 << bit % 8
        with suppress(InputError):
            assert from_text(bytes(data), path) == load(study)


def test_a_study_of_version_0_1_keeps_the_schedule_that_was_its_default(study: Path, shards: Path) -> None:
    """New studies write out what it left to its default; what was written stays."""
    old = load(study, {"embedding": {"method": "cce", "clusterings": 2}, "search.memory_budget": "2x"})
    new = resolve(old, Manifest.load(shards), "x")
    assert new.embedding.options == {"clusterings": 2, "cluster_every": 1.0}
    again = from_text(to_text(new), study)
    assert again == new
    assert isinstance(again.embedding.options["cluster_every"], float)  # epochs, not one iteration
    assert with_defaults(again, "0.1") == again
    resumed = with_defaults(from_text(to_text(old), study), "0.1")
    assert resumed.embedding.options == {"clusterings": 2, "cluster_every": 100}
    written = load(study, {"embedding": {"method": "cce", "cluster_every": {"choices": [50, 0.5]}}})
    assert with_defaults(written, "0.1") == with_defaults(written, "today") == written
    robe = load(study)
    assert with_defaults(robe, "0.1") is robe


def test_compressions_become_bytes(study: Path, shards: Path) -> None:
    manifest = Manifest.load(shards)
    full = full_bytes(manifest.cardinalities, 16)
    assert full == sum(manifest.cardinalities) * 64
    budget = resolve(load(study, {"search.memory_budget.high": "2x"}), manifest, "x").search.memory_budget
    assert budget == SizeRange(low=full // 10_000, high=full // 2)
    mixed = load(study, {"search.memory_budget": {"choices": ["1,000x", "2kB", 4000]}})
    assert resolve(mixed, manifest, "x").search.memory_budget == Choices(choices=[full // 1000, 2000, 4000])


def test_a_model_for_lists_is_refused_where_there_are_none(study: Path, shards: Path) -> None:
    spec = load(study, {"model": {"kind": {"choices": ["mlp", "din"]}, "target": "C3"}})
    with pytest.raises(InputError, match=r"x: model.kind: din needs columns of lists, and the data has none"):
        resolve(spec, Manifest.load(shards), "x")


def test_a_range_of_compressions_ends_where_models_do(
    study: Path, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = load(
        study,
        {"search.memory_budget.low": "1000000000x", "first_trials": [{"memory_budget": "1000000000x"}]},
    )
    spec = resolve(asked, Manifest.load(shards), "example.yaml")
    assert isinstance(spec.search.memory_budget, SizeRange)
    assert spec.search.memory_budget.low == 64
    assert spec.first_trials == [{"memory_budget": 64}]
    assert "no model is smaller than 64 B" in caplog.text


def test_an_override_keeps_the_rest_of_a_default(study: Path) -> None:
    text = study.read_text().replace("  epochs: {low: 1, high: 4}\n", "")
    study.write_text(text)
    assert load(study, {"search.epochs.high": 2}).search.epochs.model_dump() == {
        "low": 1,
        "high": 2,
        "log": False,
    }


@pytest.mark.parametrize(
    ("line", "replacement", "message"),
    [
        ("trials: 12", "trails: 12", r"example\.yaml:8: trails: unknown key \(did you mean trials\?\)"),
        ("trials: 12", "trials: many", r"example\.yaml:8: trials: .*valid integer, not 'many'"),
        ("trials: 12", "trials: true", r"example\.yaml:8: trials: .*valid integer, not True"),
        ("trials: 12", f"trials: {'9' * 5000}", r"example\.yaml: not valid YAML: Exceeds the limit"),
        (
            "trials: 12",
            f"trials: {'[' * 3000}",
            r"example\.yaml:8: not valid YAML: is nested more than 32 deep",
        ),
        ("trials: 12", "trials: 0", r"example\.yaml:8: trials: .*greater than or equal to 1, not 0"),
        ("name: example ", "name: a/b ", r"example\.yaml:1: name: 'a/b' is not a study name: use letters"),
        ("name: example ", "name: a.b ", r"example\.yaml:1: name: 'a\.b' is not a study name"),
        ("name: example ", "title: x ", r"example\.yaml: name: is missing: add it"),
        (
            "epochs: {low: 1",
            "epochs: {low: 5",
            r"example\.yaml:7: search\.epochs: low \(5\) is above high \(4\)",
        ),
        ("epochs: {low: 1", "epochs: {lo: 1", r":7: search\.epochs\.lo: unknown key \(did you mean low\?\)"),
        ("epochs: {low: 1", "epochs: {low: 0", r":4: search: epochs: must be a number above 0, not 0"),
        ("low: 3e-3", "low: 0", r":6: search\.learning_rate: a logarithmic range must start above 0"),
        ("low: 3e-3", "low: fast", r":6: search\.learning_rate\.low: .*valid number, not 'fast'"),
        ("low: 10000x", "low: 0x", r":5: search\.memory_budget\.low: a compression must be above 0x"),
        ("low: 10000x", "low: 2kilo", r":5: search\.memory_budget\.low: '2kilo' is not a size: write bytes"),
        ("method: robe", "method: rob", r":3: embedding\.method: unknown method 'rob': use one of full, "),
        (
            "block_len: 16",
            "blocklen: 16",
            r":3: embedding: blocklen: no such option .*did you mean block_len",
        ),
        ("block_len: 16", "block_len: 15", r":3: embedding: align 4 does not divide block_len 15"),
        ("trials: 12", "sampler: best", r":8: sampler: input should be 'tpe', .* or 'grid', not 'best'"),
        ("trials: 12", f"seed: {2**63}", r":8: seed: .*less than 9223372036854775808"),
        ("trials: 12", "model: {top_mlp: [10000000]}", r":8: model\.top_mlp.*less than or equal to 1000000"),
        ("trials: 12", "constraints: {auc: {min: .nan}}", r":8: constraints\.auc: nan is no limit"),
        ("trials: 12", "objectives: {auc: minimize}", r":8: objectives: auc can only be asked to maximize"),
        ("trials: 12", "objectives: {acc: maximize}", r":8: objectives: unknown objective 'acc'.*mean auc"),
        ("trials: 12", "train: {optimizer: lion}", r":8: train\.optimizer: .*'adam', not 'lion'"),
        ("trials: 12", "train: {precision: half}", r":8: train\.precision: .*'bfloat16', not 'half'"),
        ("trials: 12", "first_trials: [{rate: 1}]", r"first_trials\[0\]\.rate: not a searched field"),
        ("trials: 12", "trials: 12\ntrials: 13", r"example\.yaml:9: not valid YAML: found duplicate key"),
        ("trials: 12", "trials: [", r"example\.yaml:9: not valid YAML"),
        ("trials: 12", "\ttrials: 12", r"example\.yaml:8: not valid YAML: has a tab"),
    ],
)
def test_a_mistake_is_named_with_its_line(study: Path, line: str, replacement: str, message: str) -> None:
    text = study.read_text()
    assert line in text
    study.write_text(text.replace(line, replacement))
    with pytest.raises(InputError, match=message):
        load(study)


def test_a_file_of_another_tool_is_called_that(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("method: bayes\nmetric: {name: auc}\nparameters: {lr: {min: 0.1}}\n")
    with pytest.raises(InputError, match=r"sweep\.yaml: has neither `name:` nor `data:`.* right file\?$"):
        load(path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"search.memory_budget": "1000000000x"}, r"memory_budget: 0 B is too small for robe"),
        ({"embedding": {"method": "full"}}, r"full needs contiguous ids, and .* has none"),
        (
            {"search.memory_budget.low": 60},
            r"memory_budget: 60 B is too small for robe at dim 16: give at least 64 B",
        ),
        (
            {"first_trials": [{"memory_budget": "1GB"}]},
            r"first_trials\[0\]\.memory_budget: 1000000000 is out",
        ),
        ({"first_trials": [{"epochs": 1.5}]}, r"first_trials\[0\]\.epochs: must be a whole number, not 1\.5"),
        ({"first_trials": [{"epochs": True}]}, r"first_trials\[0\]\.epochs: True is outside"),
        ({"first_trials": [{"epochs": 9}]}, r"first_trials\[0\]\.epochs: 9 is outside .*\(1, 4\)"),
    ],
)
def test_what_the_data_makes_impossible(
    study: Path, shards: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        resolve(load(study, overrides), Manifest.load(shards), "example.yaml")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trails": 3}, r"--set trails: unknown key \(did you mean trials\?\)"),
        (
            {"embedding.also_stored_as": ["int4", "int4"]},
            r"embedding.also_stored_as: name each storage once, not int4, int4",
        ),
        ({"embedding.also_stored_as": "int3"}, r"also_stored_as.*'int4' or 'int2', not 'int3'"),
        (
            {"embedding": {"method": "robe", "storage": "int8", "also_stored_as": "int4"}},
            r"also_stored_as: rounds models that are trained in float32, and storage is 'int8': leave out",
        ),
        ({"trials": "x"}, r"--set trials: input should be a valid integer, not 'x'"),
        ({"name.first": 3}, r"--set name\.first: name holds a value, not fields"),
        ({"search.epochs": "two"}, r"--set search\.epochs: .*valid integer, not 'two'"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(
    study: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(study, overrides)


def test_a_file_that_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read \(No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(InputError, match=r"empty\.yaml: a study file is a mapping"):
        load(tmp_path / "empty.yaml")


@pytest.mark.parametrize("data", ["", " ", "a\0b"])
def test_data_is_some_folder(study: Path, data: str) -> None:
    with pytest.raises(InputError, match=r"--set data: .* names no folder"):
        load(study, {"data": data})


def test_many_mistakes_and_long_values_are_said_in_bounds(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(
        f"name: x\ndata: y\ntrials: {list(range(5_000))}\n" + "".join(f"field_{n}: 1\n" for n in range(200))
    )
    with pytest.raises(
        InputError, match=r"many\.yaml:3: trials: input should be a valid integer, not \[0, 1"
    ) as said:
        load(path)
    lines = str(said.value).splitlines()
    assert lines[-1] == "and 198 more such problems"
    assert all(len(line) < 300 + len(str(tmp_path)) for line in lines)


def test_a_file_without_an_embedding_searches_method_storage_and_width(study: Path, shards: Path) -> None:
    method = "embedding: {method: robe, block_len: 16, align: 4}\n"
    study.write_text(study.read_text().replace(method, ""))
    manifest = Manifest.load(shards)
    spec = resolve(load(study), manifest, "x")
    assert spec.embedding.method == Choices(choices=["robe", "hash", "hot"])
    assert spec.embedding.options["width"] == Choices(choices=[1, 2, 4, 8, 16])
    assert spec.embedding.options["storage"] == Choices(choices=["float32", "int8", "int4"])
    assert [trial["method"] for trial in spec.first_trials] == ["robe", "hot", "hot", "hot", "robe"]
    assert from_text(to_text(spec), study) == spec  # which names them all
    # The smallest model of any choice: 10,000x stays in reach though wide rows of `hot` in float32 need more.
    full = full_bytes(manifest.cardinalities, 16)
    assert isinstance(spec.search.memory_budget, SizeRange)
    assert (
        spec.search.memory_budget.low == full // 10_000 < smallest_budget("hot", manifest.cardinalities, 16)
    )

    narrow = load(study, {"model.dim": 12, "search.memory_budget.low": "500x", "search.epochs": 1})
    assert narrow.embedding.options["width"] == Choices(choices=[1, 2, 4, 12])
    assert [trial["memory_budget"] for trial in narrow.first_trials] == ["1x", "100x", "10x"]
    assert all("epochs" not in trial for trial in narrow.first_trials)
    fixed = load(study, {"search.memory_budget": "2kB", "train.distill": {"teacher": "full"}})
    assert fixed.first_trials == []


def test_a_file_that_says_anything_of_its_embedding_means_just_that(study: Path) -> None:
    method = "embedding: {method: robe, block_len: 16, align: 4}\n"
    study.write_text(study.read_text().replace(method, "embedding: {}\n"))
    for overrides in ({}, {"embedding.method": "robe"}, {"embedding.also_stored_as": "int4"}):
        spec = load(study, overrides)
        assert (spec.embedding.method, spec.embedding.options, spec.first_trials) == ("robe", {}, [])
    study.write_text(study.read_text().replace("embedding: {}\n", ""))
    assert load(study, {"embedding.width": 2}).embedding.options == {"width": 2}


def test_budgets_are_held_against_the_smallest_model_of_all_choices(study: Path, shards: Path) -> None:
    manifest = Manifest.load(shards)
    for widths in ([1, 16], [16, 1]):  # in whatever order
        hot = {"method": "hot", "storage": {"choices": ["float32", "int4"]}, "width": {"choices": widths}}
        asked = load(study, {"embedding": hot, "search.memory_budget": 100})
        assert resolve(asked, manifest, "x").search.memory_budget == 100
        with pytest.raises(InputError, match="20 B is too small for hot at dim 16: give at least 22 B"):
            resolve(load(study, {"embedding": hot, "search.memory_budget": 20}), manifest, "x")


@pytest.mark.parametrize(
    ("embedding", "said"),
    [
        ({"method": "hot", "width": 1}, r"give at least \d+ B, or set storage: int2 \(at least \d+ B\)$"),
        (
            {"method": "hot"},
            r"give at least \d+ B, or set storage: int2 \(at least \d+ B\), or set width: 1 ",
        ),
        (
            {"method": "hot", "width": 1, "storage": "int2"},
            r"at least \d+ B(, or set fingerprint_bits: 4 .*)?$",
        ),
        (
            {"method": "robe", "storage": "int2"},
            r"give at least 6 B, or set width: 1 .*, or set block_len: 1 ",
        ),
        (
            {"method": "robe", "also_stored_as": "int4"},
            r"give at least 64 B, or set width: 1 \(at least 4 B\)",
        ),
    ],
)
def test_a_budget_that_is_too_small_names_what_helps(
    study: Path, shards: Path, embedding: dict[str, object], said: str
) -> None:
    manifest, asked = Manifest.load(shards), {"embedding": embedding, "search.memory_budget": 3}
    with pytest.raises(InputError, match=said) as refused:
        resolve(load(study, asked), manifest, "x")
    wanted = re.findall(r"(?:set (\w+): (\w+) \()?at least (\d+) B", str(refused.value))
    for name, value, least in wanted:  # each is enough, and a byte less is not
        setting = {name: int(value) if value.isdigit() else value} if name else {}
        changed = {**asked, "embedding": {**embedding, **setting}}
        resolve(load(study, {**changed, "search.memory_budget": int(least)}), manifest, "x")
        with pytest.raises(InputError, match="too small"):
            resolve(load(study, {**changed, "search.memory_budget": int(least) - 1}), manifest, "x")
