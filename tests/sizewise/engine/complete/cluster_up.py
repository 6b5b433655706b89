"""Brings a cluster up over ssh on the loopback, runs an interrupted study on it, and takes it down.

    unshare --pid --fork --kill-child --mount --mount-proc --net python cluster_up.py FOLDER

Not a test itself: `test_cluster_up.py` beside it starts it as above, in namespaces of its own, because `ray down`
runs `ray stop`, which ends every Ray process that it can see, and `ray start` leaves files that other drivers
find. It prints one JSON object: what every step returned, and the processes that were there at the end.
"""

import getpass
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare

SECRET = "planted-2f6c1b7ad0"
PORT = 2222  # of the ssh server; the network is this process's own
ROOT = Path(__file__).parents[4]

STUDY = """\
name: submitted
data: {data}
model: {{dim: 8, bottom_mlp: [32], top_mlp: [32]}}
embedding: {{method: robe, block_len: 8}}
search: {{memory_budget: {{low: 1000x, high: 10x}}, epochs: {{low: 4, high: 5}}}}
train: {{batch_size: 64, evaluate_every: 0.5}}
trials: 2
"""

SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
"""


def sh(*command: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=600, **options
    )


def settle(folder: Path) -> None:
    """A home and a temporary folder of Ray's that nobody else sees, a network, an ssh server."""
    home, ray = folder / "home", folder / "ray"
    for part in (home, ray, Path("/tmp/ray"), Path("/run/sshd")):
        part.mkdir(parents=True, exist_ok=True)
    user = pwd.getpwuid(os.getuid())
    users = [
        line.replace(f":{user.pw_dir}:", f":{home}:") if line.startswith(f"{user.pw_name}:") else line
        for line in Path("/etc/passwd").read_text().splitlines()
    ]
    (folder / "passwd").write_text("\n".join(users) + "\n")
    for source, target in ((folder / "passwd", "/etc/passwd"), (ray, "/tmp/ray")):
        sh("mount", "--bind", source, target, check=True)
    os.environ["HOME"] = str(home)
    (home / "venv").symlink_to(sys.prefix)  # what the setup commands would have installed
    (home / ".profile").write_text(
        f"export PATH={os.environ['PATH']} PYTHONPATH={os.environ['PYTHONPATH']} OMP_NUM_THREADS=1 "
        f"AWS_SECRET_ACCESS_KEY={SECRET}\n"
    )
    sh("ip", "link", "set", "lo", "up", check=True)
    for name in ("host_key", "key"):
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name, check=True)
    (folder / "sshd_config").write_text(SERVER.format(port=PORT, folder=folder))
    sh("/usr/sbin/sshd", "-f", folder / "sshd_config", "-E", folder / "sshd.log", check=True)


def cluster_file(folder: Path) -> Path:
    """The cluster file of the repository, on this machine instead of AWS, where everything is installed already."""
    config = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    for kind in ("available_node_types", "head_node_type", "max_workers", "head_setup_commands"):
        config.pop(kind)
    config |= {
        "cluster_name": "loopback",
        "provider": {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []},
        "auth": {
            "ssh_user": getpass.getuser(),
            "ssh_private_key": str(folder / "key"),
            "ssh_proxy_command": f"bash -c 'exec 3<>/dev/tcp/%h/{PORT}; cat <&3 & cat >&3; kill $!'",
        },
        "file_mounts": {f"{folder}/home/.ray/auth_token": str(folder / "auth_token")},
        "setup_commands": config["setup_commands"][-1:],  # PATH, by which `ray down` finds Ray too
    }
    config["head_start_ray_commands"][1] += " --node-ip-address=127.0.0.1 --num-cpus=2"
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def living(before: set[int]) -> list[str]:
    """Names of the processes that came since; the dead ones that wait for their parent, this process, are none."""
    found = [p for p in psutil.process_iter(["name", "status"]) if p.pid not in before]
    return [p.info["name"] for p in found if p.info["status"] != psutil.STATUS_ZOMBIE]


def main(folder: Path) -> None:
    settle(folder)
    report: dict[str, Any] = {}

    def step(name: str, *command: object) -> None:
        done = sh(*command)
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        report[name] = {"code": done.returncode, "text": text}
        if done.returncode:
            raise SystemExit(f"{name}: exit code {done.returncode}\n{text}")

    planted.generate(folder / "raw", 25_000, seed=4)
    prepare([folder / "raw" / "day_0.tsv"], folder / "shards")
    (folder / "work").mkdir()
    (folder / "work" / "study.yaml").write_text(STUDY.format(data=folder / "shards"))
    (folder / "auth_token").write_text("0123456789abcdef" * 4)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "auth_token")}
    before = {process.pid for process in psutil.process_iter()}
    file, runs = cluster_file(folder), folder / "runs"
    submit = ("ray", "job", "submit", "--address", "http://127.0.0.1:8265")
    sizewise = (sys.executable, "-m", "sizewise.cli")
    try:
        step("up", "ray", "up", "--yes", "--no-config-cache", file)
        job = (*submit, "--working-dir", folder / "work", "--no-wait", "--submission-id", "first", "--")
        step("submit", *job, *sizewise, "run", "study.yaml", "--runs", runs)
        end = time.monotonic() + 400
        while time.monotonic() < end and not list(runs.glob("*/checkpoints/0001-*/*.ckpt")):
            time.sleep(0.1)
        driver = json.loads((runs / "submitted" / "driver.json").read_text())
        os.kill(driver["pid"], signal.SIGKILL)
        report["killed"] = json.loads(sh(*sizewise, "status", "submitted", "--runs", runs, "--json").stdout)
        step("resume", *submit, "--", *sizewise, "resume", "submitted", "--runs", runs, "--json")
        step("jobs", "ray", "job", "list", "--address", "http://127.0.0.1:8265")
        report["finished"] = json.loads(sh(*sizewise, "status", "submitted", "--runs", runs, "--json").stdout)
        report["alive"] = living(before)
        report["logs"] = len(list((folder / "ray").rglob("*.log")))
        report["secret"] = [
            str(path)
            for root in (folder / "ray", runs)
            for path in root.rglob("*")
            if path.is_file() and SECRET.encode() in path.read_bytes()
        ]
    finally:
        step("down", "ray", "down", "--yes", file)
    end = time.monotonic() + 60
    while (left := living(before)) and time.monotonic() < end:
        time.sleep(0.2)
    report["left"] = left
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
