"""The commands: help, exit codes, one clear message for bad input, one JSON object with --json."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from sizewise import cli, config
from sizewise.command import main
from sizewise_prep.shards.manifest import Manifest
from study_folder import StudyWriter, finished_study

COMMANDS = {
    "generate",
    "prep",
    "run",
    "resume",
    "status",
    "results",
    "choose",
    "report",
    "dashboard",
    "bound",
    "export",
    "score",
    "evaluate",
}


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def sizewise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["sizewise", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return call


@pytest.fixture
def study_file(tmp_path: Path, shards: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(f"name: some-study\ndata: {shards}\ntrials: 2\n")
    return path


def test_help_lists_the_commands_and_each_has_its_own(sizewise: Callable[..., Outcome]) -> None:
    shown = sizewise("--help")
    assert shown.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in shown.out
        assert sizewise(command, "--help").out.startswith("Usage: sizewise")


def test_help_does_not_wait_for_torch_or_ray() -> None:
    code = "import sys, sizewise.cli; print({'torch', 'ray', 'optuna', 'plotly'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_generate_and_prep_speak_json(sizewise: Callable[..., Outcome], tmp_path: Path) -> None:
    generated = sizewise("generate", tmp_path / "raw", "--rows", 500, "--seed", 2, "--files", 2, "--json")
    assert 0.5 < json.loads(generated.out)["bayes_auc"] < 1
    raw = sorted((tmp_path / "raw").glob("*.tsv"))
    assert len(raw) == 2
    prepared = sizewise("prep", *raw, "--out", tmp_path / "shards", "--json")
    assert prepared.code == 0
    reported = json.loads(prepared.out)
    assert reported.pop("seconds") > 0
    assert ["validation has 50 rows" in warning for warning in reported.pop("warnings")] == [True]
    assert "50 rows" in prepared.err
    assert reported == {
        "out": str(tmp_path / "shards"),
        "rows_in": 500,
        "rows_out": 500,
        "rows_quarantined": 0,
        "shards": 3,
    }
    assert sizewise("prep", "--verify", tmp_path / "shards").code == 0
    (tmp_path / "shards" / "test-00000.arrow").write_bytes(b"")
    damaged = sizewise("prep", "--verify", tmp_path / "shards", "--json")
    assert damaged.code == 1
    assert "test-00000.arrow" in json.loads(damaged.out)["damaged"][0]


def test_dials_add_columns_that_prep_reads_by_the_schema_file_beside(
    sizewise: Callable[..., Outcome], tmp_path: Path
) -> None:
    raw, dials = tmp_path / "raw", ["--lists", 1, "--users", 20, "--dial", "history=4"]
    made = sizewise("generate", raw, "--rows", 300, "--format", "parquet", "--crosses", 1, *dials, "--json")
    found = json.loads(made.out)
    assert list(found["bayes_auc_without"]) == ["crosses", "lists", "users", "interests"]
    assert max(found["bayes_auc_without"].values()) < found["bayes_auc"]
    prepared = sizewise(
        "prep", f"{raw}/day_*", "--schema", found["schema"], "--out", tmp_path / "out", "--json"
    )
    assert json.loads(prepared.out)["rows_out"] == 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "parquet", "--gzip"], "gzip is for text"),
        (["--dial", "history=4"], "history means something only with users: give users, too"),
        (["--dial", "historie=4"], "did you mean history?"),
        (["--crosses", 1, "--dial", "crosses=2"], "crosses is set already"),
        (["--crosses", 6], "crosses: Input should be less than or equal to 5"),
        (["--dial", "noise=much"], "noise: Input should be a valid number"),
        (["--users", 301], "users = 301: give at most one for each of the 300 rows"),
    ],
)
def test_dials_that_make_no_sense_are_named(
    sizewise: Callable[..., Outcome], tmp_path: Path, arguments: list[object], message: str
) -> None:
    refused = sizewise("generate", tmp_path / "raw", "--rows", 300, *arguments)
    assert refused.code == 2
    assert message in refused.err
    assert list(tmp_path.iterdir()) == []


def test_bad_rows_end_prep_with_file_and_line_and_leave_nothing(
    sizewise: Callable[..., Outcome], tmp_path: Path
) -> None:
    raw = tmp_path / "raw.tsv"
    raw.write_text("\t".join(["0"] * 14 + ["ab"] * 26) + "\n1\t2\t3\n")
    ended = sizewise("prep", raw, "--out", tmp_path / "shards")
    assert ended.code == 2
    assert f"{raw}" in ended.err
    assert "line 2" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.tsv"]


def test_ctrl_c_while_the_command_line_loads_ends_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sizewise.cli.main", interrupt)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "sizewise: interrupted\n")


def test_output_that_finds_no_room_ends_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "argv", ["sizewise", "--version"])
        monkeypatch.setattr("sizewise.cli.app", lambda **_: print("x" * 100_000, flush=True))
        with pytest.raises(SystemExit) as ended:
            main()
        monkeypatch.undo()
    assert ended.value.code == 1
    assert capsys.readouterr().err.endswith(
        "nothing more can be written (No space left on device): make room, and run the command again\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "{tmp}/none.yaml"], "none.yaml: cannot be read (No such file"),
        (["run", "{study}", "--set", "trials"], "--set trials: write KEY=VALUE"),
        (["run", "{study}", "--set", "trails=2"], "did you mean trials?"),
        (["run", "{study}", "--set", "data={tmp}/none"], "make a folder of shards with `sizewise prep"),
        (["run", "{study}", "--set", "search.memory_budget=8"], "too small for robe"),
        (["run", "{study}", "--runs", "{tmp}/file/runs"], "is not a folder that can be written to"),
        (["resume", "nowhere", "--runs", "{tmp}"], "no such study"),
        (["resume", "../etc", "--runs", "{tmp}"], "use letters, digits, - and _ only"),
        (["status", "a.b", "--runs", "{tmp}"], "use letters, digits, - and _ only"),
        (["status", "--runs", "{tmp}/none"], "no such folder"),
        (["prep", "{tmp}/none.tsv", "--out", "{tmp}/out"], "none.tsv"),
        (["export", "nowhere", "--trial", "0", "--out", "{tmp}/model", "--runs", "{tmp}"], "no such study"),
        (["evaluate", "{tmp}", "{study}"], "make the folder with `sizewise export"),
        (["prep"], "give raw logs and --out DIR"),
        (["staus"], "sizewise: no command 'staus': did you mean status?"),
        (["--verzion"], "sizewise: no option --verzion: did you mean --version?"),
        (["results", "x", "--tabel", "front"], "sizewise results: no option --tabel: did you mean --table?"),
        (
            ["results", "x", "--table", "frnt"],
            "'frnt' is none of trials, evaluations, front: did you mean front?",
        ),
        (["export", "x", "--trial", "a"], "sizewise export: --trial: must be a whole number, not 'a'"),
        (["export", "x"], "sizewise export: --trial is missing"),
        (["resume"], "sizewise resume: NAME is missing"),
        (["resume", "mine.yaml"], "mine.yaml: is a file; give the name of the study"),
        (
            ["run", "x.yaml", "--trials", "3"],
            "file is changed by --set trials=VALUE",
        ),
        (["choose", "x", "--min-auc", "1.5"], "--min-auc: must be at most 1, not '1.5'"),
        (["status", "a", "b\x1b[2J"], "sizewise status: unexpected argument 'b"),
        (["resume", "x", "--runs"], "option '--runs' requires an argument"),
        (["x" * 5_000], "..."),
        (
            ["results", "x", "--out", "x.xlsx"],
            "x.xlsx: no format goes by this ending: end --out in .json, .csv",
        ),
        (["results", "x", "--out", "x.csv", "--format", "json"], "x.csv: ends as no json file does"),
        (["results", "x", "--format", "table", "--out", "x.csv"], "--format table is for a terminal"),
        (["results", "x", "--format", "parquet"], "add --out FILE.parquet"),
        (["results", "x", "--format", "csv", "--json"], "--json and --format csv: give one of them"),
        (["report", "x", "--out", "x.pdf"], "x.pdf: the report is one HTML file: end --out in .html"),
        (
            ["score", "{tmp}", "{study}", "--out", "x.xls"],
            "x.xls: scores are written as the name ends, in .csv",
        ),
        (["score", "{tmp}", "{study}", "--out", "scores"], "scores: scores are written as the name ends"),
        (["prep", "x", "--out", "{tmp}/y", "--ray", "127.0.0.1:9"], "127.0.0.1:9: cannot be reached ("),
        (["prep", "x", "--out", "y", "--split", "0.5,0.5"], "give three fractions"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    sizewise: Callable[..., Outcome],
    study_file: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    filled = [a.format(tmp=tmp_path, study=study_file) for a in arguments]
    if arguments[0] == "run" and "--runs" not in arguments:
        filled += ["--runs", str(tmp_path / "runs")]
    ended = sizewise(*filled)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert not re.search("Traceback|Value error|\x1b", ended.err)
    assert len(ended.err) < 300
    assert sorted(tmp_path.rglob("*")) == before


def test_a_finished_study_is_neither_run_nor_resumed_again(
    sizewise: Callable[..., Outcome], study_file: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    finished_study(runs, "some-study", trials=2)
    (runs / "some-study" / "study.yaml").write_bytes(config.to_text(config.load(study_file)))
    assert "a study of this name exists: continue it with" in sizewise("run", study_file, "--runs", runs).err
    again = sizewise("resume", "some-study", "--runs", runs)
    assert again.code == 2
    assert "trials have run: there is nothing to resume" in again.err


def test_status_says_why_earlier_attempts_were_lost(sizewise: Callable[..., Outcome], tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "lossy", trials=3)
    memory, died = "its machine ran out of memory: lower train.batch_size", "its worker process died"
    writer.trial(0, attempts=3, lost={1: memory, 2: died})
    writer.trial(1, state="failed", error="DivergedError", attempts=2, lost={1: died})
    writer.trial(2)
    writer.driver("finished")
    shown = sizewise("status", "lossy", "--runs", tmp_path).out
    assert f"lost a worker in trial 0: {memory}\nlost a worker in trial 0, 1: {died}\n" in shown
    assert "trial 1 failed: DivergedError" in shown
    reported = json.loads(sizewise("status", "lossy", "--runs", tmp_path, "--json").out)
    assert reported["lost"] == {memory: [0], died: [0, 1]}
    shown = sizewise("status", "lossy", "--runs", tmp_path, "--trial", 0).out
    assert shown == (
        "trial 0 of lossy: finished, 3 attempts\n"
        f"attempt 1 lost its worker: {memory}\nattempt 2 lost its worker: {died}\n"
    )
    reported = json.loads(sizewise("status", "lossy", "--runs", tmp_path, "--trial", 0, "--json").out)
    assert reported["lost"] == {"1": memory, "2": died}


def test_bound_speaks_of_a_folder_or_of_a_number(
    sizewise: Callable[..., Outcome], shards: Path, tmp_path: Path
) -> None:
    headline = json.loads(sizewise("bound", "--rows", 204_184_588, "--dim", 128, "--eps", 0.1, "--json").out)
    assert headline["dimensions"] == 16_402
    assert headline["full_bytes"] == 204_184_588 * 128 * 4
    assert headline["bytes"] == 16_402 * 128 * 4
    assert "8.4 MB instead of 105 GB" in sizewise("bound", "--rows", 204_184_588, "--dim", 128).out
    of_data = json.loads(sizewise("bound", shards, "--json").out)
    assert of_data["rows"] == sum(Manifest.load(shards).cardinalities)
    assert "not for embedding.method hash or robe" in of_data["holds_for"]
    hashed = {made["map"]: made for made in of_data["shared_pool"]["maps"]}
    assert hashed.keys() == {"hash", "robe", "robe, sign: true"}
    errors = [row["vector_error"] for row in hashed["robe"]["ids"]]
    assert errors == sorted(errors)  # rarer ids are further off
    less = json.loads(sizewise("bound", shards, "--memory-budget", "2kB", "--json").out)["shared_pool"]
    assert less["bytes"] == 2000
    assert less["maps"][0]["ids"][0]["vector_error"] > errors[0]
    text = " ".join(sizewise("bound", shards).out.split())
    assert "It does not hold for hash and robe" in text
    assert "nan" not in text
    assert sizewise("bound", shards, "--memory-budget", "10").code == 2
    assert sizewise("bound", "--rows", 100, "--skew", "nan").code == 2
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    next(copy.rglob("*train*.arrow")).unlink()
    refused = sizewise("bound", copy, "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "prepare the data again" in refused.err
    assert sizewise("bound").code == 2
    assert sizewise("bound", shards, "--eps", 2).code == 2


def test_reading_commands_speak_json(sizewise: Callable[..., Outcome], tmp_path: Path) -> None:
    finished_study(tmp_path, "done")
    assert json.loads(sizewise("status", "--runs", tmp_path, "--json").out)["studies"][0]["name"] == "done"
    status = json.loads(sizewise("status", "done", "--runs", tmp_path, "--json").out)
    assert status["progress"] == 1.0
    for table in ("trials", "evaluations", "front"):
        arguments = ("results", "done", "--runs", tmp_path, "--table", table)
        rows = json.loads(sizewise(*arguments, "--json").out)["rows"]
        assert rows
        assert len(json.loads(sizewise(*arguments, "--format", "json").out)) == len(rows)
        assert sizewise(*arguments, "--format", "csv").out.count("\n") >= len(rows) + 1
        for ending in ("parquet", "csv", "json"):
            reported = sizewise(*arguments, "--out", tmp_path / f"{table}.{ending}", "--json").out
            assert json.loads(reported)["written"] == len(rows)
        for read in (pl.read_parquet, pl.read_csv, pl.read_json):
            file = tmp_path / f"{table}.{read.__name__.removeprefix('read_')}"
            assert read(file).height == len(rows)
    chosen = json.loads(sizewise("choose", "done", "--runs", tmp_path, "--max-bytes", "1MB", "--json").out)
    assert chosen["embedding_bytes"] <= 1_000_000
    assert {"trial_id", "auc", "embedding_bytes", "model_bytes", "iteration", "why"} <= chosen.keys()
    assert chosen["export"].startswith("sizewise export done --runs")
    shown = sizewise("choose", "done", "--runs", tmp_path, "--max-bytes", "1MB").out
    assert shown.splitlines()[-1] == chosen["export"]
    impossible = sizewise("choose", "done", "--runs", tmp_path, "--min-auc", "0.999")
    assert impossible.code == 2
    assert "Nearest" in impossible.err
    report = json.loads(
        sizewise("report", "done", "--runs", tmp_path, "--out", tmp_path / "r.html", "--json").out
    )
    assert report["bytes"] == (tmp_path / "r.html").stat().st_size < 6_000_000


def test_the_shell_completes_commands_options_and_the_names_of_studies(tmp_path: Path) -> None:
    for name in ("mine", "mine-too", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)

    def completed(words: str) -> list[str]:
        asked = {
            "_SIZEWISE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        command = [sys.executable, "-c", "from sizewise.cli import main; main()"]
        ran = subprocess.run(
            command, env={**os.environ, **asked}, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return ran.stdout.split()

    assert completed("sizewise res") == ["resume", "results"]
    assert completed("sizewise results --ta") == ["--table"]
    assert completed("sizewise choose mi") == ["mine", "mine-too"]
    assert completed(f"sizewise status --runs {tmp_path / 'runs'} o") == ["other"]


def test_status_of_a_study_with_many_failures_is_short(
    sizewise: Callable[..., Outcome], tmp_path: Path
) -> None:
    writer = StudyWriter(tmp_path, "failing", trials=60)
    for trial in range(60):
        error = "DivergedError: the loss is not finite" if trial < 40 else f"OSError: {trial}{'x' * 50_000}"
        writer.ledger(trial, "failed", error=error, lost={1: "its worker process died"}, attempts=2)
        (tmp_path / f"damaged-{trial}" / "trials").mkdir(parents=True)
        (tmp_path / f"damaged-{trial}" / "study.json").write_text("{")
    shown = sizewise("status", "failing", "--runs", tmp_path).out
    assert (
        "lost a worker in trial 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 50 more: its worker process died\n" in shown
    )
    assert (
        "trial 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 30 more failed: DivergedError: the loss is not finite\n"
        in shown
    )
    assert "11 more reasons; all: `sizewise results failing --runs" in shown
    assert len(shown) < 15_000
    listed = sizewise("status", "--runs", tmp_path)
    assert listed.err.count("\n") == 11
    assert "50 more problems; all of them: `sizewise status --runs" in listed.err
