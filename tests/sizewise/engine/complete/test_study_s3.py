"""A whole study in an object store, data included: cut off, resumed, read; and equal to the calm local one."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from real_study import STUDY, Command, assert_equal, calm_study, prepare_data, wait_until
from s3_server import Door, S3Server
from sizewise import cli, results
from sizewise.cli import shared
from sizewise_core.stores.storage import entries, place, write
from sizewise_dashboard.launch import APP

RUNS = "s3://studies/whole/runs"


@pytest.fixture
def study(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study file over shards in a bucket; nothing is cached on this machine."""
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    for path in prepare_data(tmp_path / "data").iterdir():
        write(place("s3://studies/whole/shards") / path.name, path.read_bytes())
    file = tmp_path / "killed.yaml"
    file.write_text(STUDY.format(data="s3://studies/whole/shards").replace("trials: 3", "trials: 2"))
    return file


@pytest.fixture
def door(s3: S3Server) -> Iterator[Door]:
    with Door(s3) as door:
        yield door


@pytest.mark.slow
def test_a_study_in_an_object_store_survives_what_a_local_one_does(
    study: Path, s3: S3Server, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = place(RUNS) / "killed", ""
    through = {"AWS_ENDPOINT_URL": door.url}

    def saved(trial: str) -> bool:
        """Whether a trial has a checkpoint."""
        keys = [entry.path for entry in entries(folder / "checkpoints", f"{trial}-*")]
        return any(entries(own.path, "*.ckpt") for key in keys for own in entries(key, "0*"))

    # The storage goes away in the middle of the second trial: the study pauses, and says so.
    with Command("run", study, "--runs", RUNS, environment=through) as run:
        wait_until(lambda: saved("0001"), run)
        door.close()
        code, out, err = run.end()
        assert code == 1, err
        assert "killed is paused: " in err
        assert "s3://studies/whole/runs/killed/" in err
        assert "cannot be reached" in err
        assert f"`sizewise resume killed --runs {RUNS}`" in err
        assert "Traceback" not in err
        run.leaves_nothing()
        said += out + err
    # The driver could not write its end into driver.json: it is known to be gone all the same.
    first = json.loads(_print("status", "killed", "--json"))
    assert (first["state"], first["trials"]["finished"], first["trials"]["failed"]) == ("interrupted", 1, 0)

    with Command("resume", "killed", "--runs", RUNS, "--json") as run:
        code, out, err = run.end()
        assert code == 0, err
        assert json.loads(out)["trials"]["finished"] == 2
        said += out + err

    # Copying the folder copies the study.
    copy = tmp_path / "copy" / "killed"
    folder.fs.get(folder.path, str(copy), recursive=True)  # type: ignore[union-attr]
    calm_study(study, tmp_path / "calm")
    assert_equal(copy, tmp_path / "calm")

    # Everything that reads reads it there as it does the copy.
    assert results.load(place(RUNS), "killed").evaluations.equals(
        results.load(copy.parent, "killed").evaluations
    )
    for command in (("results", "killed"), ("choose", "killed", "--max-bytes=1MB"), ("status", "killed")):
        there, here = _print(*command), _print(*command, runs=str(copy.parent))
        assert there.replace(RUNS, "RUNS") == here.replace(str(copy.parent), "RUNS")  # in the export command
    assert _print("report", "killed", f"--out={tmp_path / 'report.html'}")
    assert "killed" in (tmp_path / "report.html").read_text()
    monkeypatch.setattr("sys.argv", [str(APP), RUNS])
    app = AppTest.from_file(str(APP), default_timeout=300).run()
    assert not app.exception
    assert [link.proto.label for link in app.get("page_link")] == ["**killed**"]

    secret = s3.environment["AWS_SECRET_ACCESS_KEY"]
    assert secret not in said
    written = [path for root in (copy, tmp_path / "cache", tmp_path / "scratch") for path in root.rglob("*")]
    assert [path for path in written if path.is_file() and secret.encode() in path.read_bytes()] == []


def _print(*command: str, runs: str = RUNS) -> str:
    """What a command prints, run in this process."""
    done = CliRunner().invoke(shared.app, [*command, "--runs", runs])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", [("status",), ("run", "{study}")])
@pytest.mark.parametrize(
    ("runs", "code", "message"),
    [
        ("s3://absent/runs", 2, "s3://absent/runs"),
        ("s4://studies/runs", 2, "s4:// is no kind of storage"),
        ("s3://AKIA:never-to-be-seen-anywhere@studies/runs", 2, "credentials do not belong into a URI"),
        ("gs://studies/runs", 2, "gs:// is not installed"),
    ],
)
def test_a_place_that_is_none_is_said_in_one_message(
    s3: S3Server,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    runs: str,
    code: int,
    message: str,
) -> None:
    (tmp_path / "study.yaml").write_text(f"name: none\ndata: {shards}\n")
    filled = [part.format(study=tmp_path / "study.yaml") for part in command]
    monkeypatch.setattr(sys, "argv", ["sizewise", *filled, "--runs", runs])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    assert (ended.value.code, out) == (code, ""), err
    assert message in err
    assert "Traceback" not in err
    assert "never-to-be-seen" not in err


@pytest.mark.slow
def test_wrong_credentials_and_a_server_that_is_gone_are_told_apart(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(f"name: none\ndata: {shards}\n")
    runs = ("--runs", "s3://studies/runs")
    with S3Server(strict=True) as server:
        environment = {"HOME": str(tmp_path), **server.environment}
        for command in (("status", *runs), ("run", tmp_path / "study.yaml", *runs)):
            with Command(*command, environment=environment) as run:
                code, out, err = run.end()
            assert (code, out) == (2, ""), err
            assert "s3://studies/runs" in err
            assert "access denied" in err
            assert "Traceback" not in err
            assert not {"never-to-be-seen-anywhere", "AKIAOFTHESETESTS"} & set(err.split())
        unset = {name: value for name, value in environment.items() if "KEY" not in name}
        unset["AWS_EC2_METADATA_DISABLED"] = "true"
        with Command("status", *runs, environment=unset) as run:
            code, out, err = run.end()
        assert (code, out) == (2, ""), err
        assert os.environ.get("AWS_ACCESS_KEY_ID") is None
        assert "credentials" in err
    with Command("status", *runs, environment=environment) as run:
        code, out, err = run.end()
    assert (code, out) == (1, ""), err
    assert "s3://studies/runs: cannot be reached" in err
    assert "Traceback" not in err
