"""One's own model: found beside the study file, tried out before anything starts, trained on workers, exported."""

import copy
import io
import os
import random
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.sizewise.models.own.nets import LAYERS, NETS

from s3_server import S3Server
from sizewise import results
from sizewise.config import load
from sizewise.config.study_file import StudySpec
from sizewise.config.trial import TrialConfig
from sizewise.embedding import build
from sizewise.models import build as build_model
from sizewise.models import find
from sizewise.models.dry_step import Conditions, dry_step
from sizewise.search.space import configure
from sizewise.store import code
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import entries, place, read, write
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A folder with the modules, which are found."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "nets_layers.py").write_text(LAYERS)
    (tmp_path / "broken.py").write_text("import a_library_that_is_not_installed\n")
    (tmp_path / "exits.py").write_text("print('loading')\nimport sys\nsys.exit(2)\n")
    code.search(tmp_path)
    return tmp_path


def embedding() -> Any:
    return build("hash", [10, 20, 30], 4, 4_000, 1)


def test_it_trains_as_the_module_alone_would(nets: Path) -> None:
    dense, ids = torch.randn(9, 2), torch.randint(0, 10, (9, 3))
    model = build_model("nets:Net", embedding(), 2, {"hidden": 5})
    same = build_model("nets:AllOptions", embedding(), 2, {"hidden": 5})
    module = model.module
    torch.testing.assert_close(model(dense, ids.to(torch.uint32)), module(dense, ids), rtol=0, atol=0)
    torch.testing.assert_close(same(dense, ids), model(dense, ids), rtol=0, atol=0)  # equal seeds
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"module"}
    layers = (2 + 12) * 5 + 5 + 5 + 1
    assert model.model_bytes == model.embedding_bytes + 4 * layers
    twin = copy.deepcopy(model)
    assert any(part is twin.embedding for part in twin.module.modules())
    with torch.device("meta"):
        assert build_model("nets:Net", embedding(), 2, {"hidden": 5}).model_bytes == model.model_bytes
        assert build_model("nets:Reads", embedding(), 2, {}).model_bytes > 0


def test_its_footprint_is_measured(nets: Path) -> None:
    kind = find("nets:Net")
    found = kind.floats(3, 2, 4, kind.options(hidden=50))
    assert found.parameters == 14 * 50 + 50 + 50 + 1
    assert 50 + 14 + 12 <= found.per_row <= 2 * (50 + 14 + 12) + 12


def test_its_footprint_on_lists_is_measured(nets: Path) -> None:
    """Beside a row, what each value of a list keeps that is not counted anyhow."""
    kind = find("nets:Lists")
    found, plain = (
        find(name).floats(3, 2, 4, kind.options(hidden=50)) for name in ("nets:Lists", "nets:Net")
    )
    assert found.parameters == plain.parameters
    assert plain.per_row <= found.per_row <= plain.per_row + 40
    assert (plain.per_value, found.per_value) == (0, pytest.approx(8, abs=8))


def test_a_state_has_a_tied_weight_once(nets: Path) -> None:
    model, other = (build_model("nets:Tied", embedding(), 2, {}) for _ in range(2))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    state = model.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    other.load_state_dict(state)
    dense, ids = torch.randn(4, 2), torch.randint(0, 9, (4, 3))
    assert torch.equal(model(dense, ids), other(dense, ids))


def test_a_table_of_its_own_counts_and_is_mentioned(nets: Path) -> None:
    (note,) = dry_step("nets:OwnTable", embedding(), 2, {})
    assert "first (Embedding of 100 x 4, 1.6 kB)" in note
    model = build_model("nets:OwnTable", embedding(), 2, {})
    assert model.embedding_bytes == model.embedding.embedding_bytes + 1_600
    plain = build_model("nets:Net", embedding(), 2, {})
    assert model.model_bytes == plain.model_bytes + 1_600


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("nets_missing:Net", {}, "cannot be imported .ModuleNotFoundError: .*beside the study file"),
        ("broken:Net", {}, "cannot be imported .ModuleNotFoundError: No module named 'a_library"),
        ("nets:Nett", {}, "cannot be imported: nets has no Nett"),
        ("nets:number", {}, "is no subclass of torch.nn.Module"),
        ("nets:not_a_module", {}, "gives a int, not a torch.nn.Module"),
        ("nets:RaisesEarly", {}, "raises when it is built .RuntimeError: no weights file at /nowhere"),
        ("nets:Net", {"hiden": 3}, "takes other arguments .got an unexpected keyword argument 'hiden'.*hidden=8"),
        ("nets:NeedsMore", {}, "takes other arguments .missing a required argument: 'heads'"),
        ("nets:Net", {"hidden": "wide"}, "raises when it is built .TypeError"),
        ("nets:Column", {}, r"gives logits of shape \(7, 1\) for 7 rows, not \(7,\): add .squeeze\(1\)"),
        ("nets:Half", {}, r"changes the batch size: it gives logits of shape \(4,\) for 7 rows"),
        ("nets:Scalar", {}, r"gives logits of shape \(\) for 1 rows.*write .squeeze\(1\)"),
        ("nets:Nan", {}, "not finite .NaN"),
        ("nets:NanGradient", {}, "gradients that are not finite"),
        ("nets:Pair", {}, "gives a tuple, not one tensor"),
        ("nets:Detached", {}, "no gradient reaches"),
        ("nets:Raises", {}, "raises in forward .RuntimeError"),
        ("nets:Exits", {}, "raises in forward .SystemExit: 4"),
        ("nets:Probabilities", {}, "gives probabilities, for it ends with sigmoid"),
        ("nets:Sparse", {}, r"has a sparse gradient .first.weight.*leave out sparse=True"),
        ("nets:Lazy", {}, "has parameters without a shape"),
        ("nets:Grows", {}, r"makes parameters in forward .late.weight, late.bias"),
        ("nets:Doubled", {}, "makes the embedding that it is given torch.float64"),
        ("nets:Frozen", {}, "freezes the embedding"),
        ("nets:Lists", {}, "raises in forward .TypeError.*it is called as forward.dense, ids"),
        ("exits:Net", {}, "cannot be imported .ExitedError: it calls sys.exit"),
        ("code:Net", {}, r"code has no Net .it is '.*code.py'.: rename your module"),
        ("nets/nets.py:Net", {}, "write it like nets:Net, with the module beside the study file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(
    nets: Path, kind: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dry_step(kind, embedding(), 2, options)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "conditions", "message"),
    [
        ("nets:RowOfTable", Conditions(largest_ids=[2**32 - 1] * 3), "ids up to 4,294,967,295: number them"),
        ("nets:Normalized", Conditions(), "not finite"),
        ("nets:Normalized", Conditions(signed=False, shortest=1), "end with a batch of 1 row: change train.batch_size"),
        ("nets:Normalized", Conditions(signed=False, workers=2), r"changes buffers in training .norm.running_mean"),
        ("nets:Careless", Conditions(workers=2), "no gradient reaches .unused.weight, unused.bias.*2 workers need"),
    ],
)  # fmt: skip
def test_what_only_this_data_or_these_workers_forbid(
    nets: Path, kind: str, conditions: Conditions, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dry_step(kind, embedding(), 2, {}, conditions)
    assert len(str(caught.value)) < 300
    assert dry_step("nets:Normalized", embedding(), 2, {}, Conditions(signed=False, shortest=2)) == []


def test_what_is_odd_is_said_and_nothing_is_printed(
    nets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = "; ".join(dry_step("nets:Careless", embedding(), 2, {}))
    assert "changes the weights of the embedding that it is given" in notes
    assert "no gradient reaches: unused.weight, unused.bias" in notes
    assert "neither parameters nor buffers (scale)" in notes
    assert "draws from random in forward" in notes
    assert find("nets:Careless").floats(3, 2, 4, find("nets:Careless").options()).parameters > 0
    assert capsys.readouterr().out == ""
    before = random.getstate()
    first, second = (build_model("nets:Careless", embedding(), 2, {}).module.start for _ in range(2))
    assert first == second  # drawn from the trial's seed
    assert random.getstate() == before
    (note,) = dry_step("nets:Copies", embedding(), 2, {})
    assert "other (RowHash of 60 x 4, " in note
    copied = build_model("nets:Copies", embedding(), 2, {})
    assert copied.embedding_bytes == 2 * copied.embedding.embedding_bytes


def test_what_a_module_draws_when_it_is_imported_changes_no_draws_of_a_trial(
    nets: Path, tmp_path: Path
) -> None:
    (nets / "draws.py").write_text("import torch\nFIRST = torch.rand(3)\nfrom nets import Net\n")
    before = torch.get_rng_state()
    find("draws:Net")
    first = sys.modules.pop("draws").FIRST
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    find("draws:Net")
    assert torch.equal(sys.modules["draws"].FIRST, first)


def test_what_takes_long_is_said_with_its_line(
    nets: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizewise.models.foreign.SLOW_SECONDS", 0.05)
    (nets / "slow.py").write_text("import time\nend = time.time() + 1\nwhile time.time() < end:\n    pass\n")
    with pytest.raises(InputError, match="slow has no Net"):
        find("slow:Net")
    assert re.search(r"slow:Net: its module has been imported for .*slow.py:[34]: Ctrl", caplog.text)


def test_a_dry_step_takes_little_time(nets: Path) -> None:
    many = build("hash", [100_000] * 26, 16, 2**20, 1)
    dry_step("nets:Net", many, 13, {"hidden": 256})
    begun = time.process_time()
    dry_step("nets:Net", many, 13, {"hidden": 256})
    assert time.process_time() - begun < 2


@pytest.mark.slow
def test_code_goes_along_with_a_study_and_with_the_next_one(nets: Path, tmp_path: Path) -> None:
    (nets / "unrelated.py").write_text("")
    package = nets / "of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text("from nets import Net\n")
    (package / "late.py").write_text("")  # imported by nobody yet
    find("of_mine.deep:Net")
    kept = code.packed(["of_mine.deep"])
    assert kept is not None
    names = ["nets.py", "nets_layers.py", "of_mine/__init__.py", "of_mine/deep.py", "of_mine/late.py"]
    assert zipfile.ZipFile(io.BytesIO(kept)).namelist() == names
    study = tmp_path / "study"
    study.mkdir()
    (study / "code.zip").write_bytes(kept)
    code.use(study)
    (nets / "nets.py").unlink()
    assert "code.zip" in sys.modules[find("of_mine.deep:Net").factory.__module__].__file__  # type: ignore[operator]
    assert code.packed(["of_mine.deep"]) == kept
    assert code.packed(["json", "numpy"]) is None


def test_a_study_is_read_without_its_code(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "name: mine\ndata: d\nmodel: {kind: 'no.such.module:Net', hidden: {low: 2, high: 9}, dim: 4}\n"
        "embedding: {method: robe}\n"
    )
    spec = load(tmp_path / "study.yaml")
    assert StudySpec.model_validate(spec.model_dump()) == spec
    assert "hidden" in dict(spec.searched())

    class First:
        def suggest_int(self, name: str, low: int, high: int, log: bool = False) -> int:
            return low

        def suggest_float(self, name: str, low: float, high: float, log: bool = False) -> float:
            return low

        def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
            return choices[-1]

    settled = spec.model_copy(update={"search": spec.search.model_copy(update={"memory_budget": 900})})
    config = configure(settled, First(), 10**6)
    assert config.options_of_model() == {"hidden": 2}
    assert TrialConfig.from_flat(config.flat()) == config
    both = StudySpec.model_validate(
        {
            "name": "s",
            "data": "d",
            "model": {"kind": {"choices": ["dcn", "nets:Net"]}, "hidden": 3, "rank": 9},
            "embedding": {"method": "robe"},
            "search": {"memory_budget": 900},
        }
    )
    assert configure(both, First(), 10**6).options_of_model() == {"hidden": 3}
    (tmp_path / "study.yaml").write_text("name: mine\ndata: d\nmodel: {kind: 'nets.py:Net-'}\n")
    with pytest.raises(InputError, match=r"'nets.py:Net-' is no package.module:Class"):
        load(tmp_path / "study.yaml")


def prepare_lists(folder: Path) -> None:
    """Shards of rows with an integer, a token and a list."""
    random = np.random.default_rng(1)
    histories = [random.integers(0, 50, length).tolist() for length in random.integers(0, 6, 2_000)]
    frame = {
        "clicked": random.integers(0, 2, 2_000),
        "age": random.integers(0, 90, 2_000),
        "user": random.integers(0, 60, 2_000),
        "history": histories,
    }
    pl.DataFrame(frame).write_parquet(folder.with_suffix(".parquet"))
    columns = {"clicked": "label", "age": "integer", "user": "token", "history": "tokens"}
    prepare(folder.with_suffix(".parquet"), folder, layout=Layout(columns=columns))


@pytest.mark.slow
def test_a_study_of_ones_own_model_on_workers_and_as_a_program(nets: Path, s3: S3Server) -> None:
    """On rows with lists, in an object store: its code goes with it, it is resumed without that, and exported."""
    prepare_lists(nets / "data")
    runs = "s3://studies/own/runs"
    (nets / "study.yaml").write_text(
        f"name: mine\ndata: {nets / 'data'}\ntrials: 2\nseed: 3\n"
        "model: {kind: {choices: ['nets:Lists', 'nets:FftLists']}, dim: 4, hidden: {choices: [4, 8]}}\n"
        "embedding: {method: robe}\nsearch: {memory_budget: 20kB, epochs: 1}\ntrain: {evaluate_every: 1.0}\n"
        "first_trials: [{model: 'nets:Lists'}, {model: 'nets:FftLists'}]\n"
    )
    elsewhere = nets / "elsewhere"
    elsewhere.mkdir()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        words = (*words, "--runs", runs)
        return subprocess.run(
            [sys.executable, "-m", "sizewise.cli", *words],
            cwd=elsewhere,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=800,
        )

    refused = run("run", str(nets / "study.yaml"), "--set", "model.kind=nets:Net", "--set", "first_trials=[]")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the data has lists: forward(dense, ids, bags)" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
    assert not entries(place(runs) / "mine", "*")

    done = run("run", str(nets / "study.yaml"), "--json", "--set", "trials=1")
    assert done.returncode == 0, done.stderr
    kept = io.BytesIO(read(place(runs) / "mine" / "code.zip", 10**6))
    assert zipfile.ZipFile(kept).namelist() == ["nets.py", "nets_layers.py"]
    for name in ("nets.py", "nets_layers.py"):
        (nets / name).unlink()
    study = place(runs) / "mine" / "study.yaml"
    text = read(study, 10**6).decode().replace("trials: 1\n", "trials: 2\n")
    write(study, "".join(line for line in text.splitlines(True) if not line.startswith("# crc32")).encode())
    resumed = run("resume", "mine", "--json")
    assert resumed.returncode == 0, resumed.stderr
    rows = results.load(place(runs), "mine").trials.to_dicts()
    assert [(row["state"], row["model"]) for row in rows] == [
        ("finished", "nets:Lists"),
        ("finished", "nets:FftLists"),
    ]
    assert all(row["hidden"] in (4, 8) for row in rows)

    exported = run("export", "mine", "--trial", "0", "--out", "out")
    assert exported.returncode == 0, exported.stderr
    program = torch.export.load(elsewhere / "out" / "model.pt2").module()
    tokens = torch.randint(0, 2**32, (5 + 8, 1)).to(torch.uint32)
    lengths = torch.tensor([[2], [0], [1], [4], [1]])
    scores = program(torch.rand(5, 1), tokens[:5], tokens[5:, 0].contiguous(), lengths)
    assert np.isfinite(scores.detach().numpy()).all()
    refused = run("export", "mine", "--trial", "1", "--out", "out1")
    assert refused.returncode == 2
    assert "cannot be exported" in refused.stderr
    assert "fft" in refused.stderr
