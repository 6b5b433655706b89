"""A real cluster: brought up over ssh, given a study, its job killed and resumed, taken down. And the files for AWS."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[4]
FILES = sorted(ROOT.glob("ray_cluster*.yaml"))
NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net")
NEEDED = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare")


def check(config: dict[str, Any]) -> dict[str, Any]:
    """Ray's two checks of a cluster file, each of which misses what the other finds; the file with its defaults."""
    schema = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_cluster_files_are_what_ray_takes(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    types = check(config)["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert "GPU" not in head["resources"]
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in types.values())  # zero when idle
    assert any(kind["resources"].get("GPU") for kind in types.values())
    assert any("constraints.txt" in command for command in config["setup_commands"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_field_of_a_cluster_file_is_explained(path: Path) -> None:
    lines = path.read_text().splitlines()
    fields = [number for number, line in enumerate(lines) if re.match(r" *(- )?\w+:( |$)", line)]
    assert len(fields) > 40
    for number in fields:
        above = lines[number - 1].lstrip().startswith("#")
        assert " #" in lines[number] or above, f"line {number + 1}: {lines[number]}"


def test_the_checks_would_notice() -> None:
    good = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    for field, value in (("head_node_type", "nobody"), ("idle_timeout_minutes", "five"), ("max_wokers", 8)):
        with pytest.raises((ValueError, jsonschema.ValidationError)):
            check({**good, field: value})


def test_what_aws_is_asked_for_is_what_ec2_knows() -> None:
    session = pytest.importorskip(
        "botocore.session", reason="botocore, which knows EC2's fields, is not installed"
    )
    validate = pytest.importorskip("botocore.validate")
    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    config = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    for name, kind in config["available_node_types"].items():
        asked = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
        report = validate.ParamValidator().validate(asked, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def isolated() -> str:
    """Why no cluster can be brought up here without touching others; empty where one can."""
    missing = [
        name for name in NEEDED if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    ]
    if missing:
        return f"not installed: {', '.join(missing)}"
    tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    return tried.stderr.strip()


@pytest.mark.slow
def test_a_cluster_comes_up_serves_an_interrupted_study_and_leaves_nothing(tmp_path: Path) -> None:
    # `ray down` runs `ray stop`, which ends every Ray process that it sees: so it must see none but its own.
    if reason := isolated():
        pytest.skip(f"needs namespaces of its own, to leave other Ray clusters alone ({reason})")
    done = subprocess.run(
        [*NAMESPACES, sys.executable, str(Path(__file__).with_name("cluster_up.py")), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=850,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # where `ray` and `sizewise` are
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["killed"]["state"] == "interrupted"
    assert report["killed"]["trials"]["finished"] == 1
    (first,) = (job for job in report["jobs"]["text"].split("JobDetails(") if "submission_id='first'" in job)
    assert "JobStatus.FAILED" in first
    assert report["finished"]["state"] == "finished"
    assert report["finished"]["trials"]["finished"] == 2
    assert "succeeded" in report["resume"]["text"]
    assert {"raylet", "gcs_server"} <= set(report["alive"])
    assert report["left"] == []
    assert report["logs"] > 10
    assert report["secret"] == []  # that the job's environment holds, and its workers' too
