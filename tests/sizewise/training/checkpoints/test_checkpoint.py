"""Checkpoints: the newest valid one wins, and damage is set aside."""

from pathlib import Path

import pytest
import torch

from sizewise.store.study_folder import TrialFolder
from sizewise.training.checkpoints import checkpoint
from sizewise_core.files.sealed import DamagedError


def test_the_newest_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    for iteration in (10, 20, 30):
        checkpoint.save(tmp_path, iteration, {"iteration": iteration, "pool": torch.arange(3) * iteration})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000000000020.ckpt", "000000000030.ckpt"]
    state = checkpoint.load_newest(tmp_path)
    assert state is not None
    assert state["iteration"] == 30
    assert state["pool"].tolist() == [0, 30, 60]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_newest_falls_back_to_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for iteration in (10, 20):
        checkpoint.save(tmp_path, iteration, {"iteration": iteration})
    newest = tmp_path / "000000000020.ckpt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"truncated": data[:100], "flipped": data, "empty": b""}[damage])
    state = checkpoint.load_newest(tmp_path)
    assert state is not None
    assert state["iteration"] == 10
    assert "000000000020.ckpt is damaged" in caplog.text
    assert newest.with_suffix(".damaged").exists()


def test_a_checkpoint_of_a_gpu_is_read_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as saving:
        saving.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        checkpoint.save(tmp_path, 10, {"pool": torch.arange(3)})
    state = checkpoint.load_newest(tmp_path)
    assert state is not None
    assert state["pool"].tolist() == [0, 1, 2]


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "nowhere") is None


def test_weights_come_back_in_every_type(tmp_path: Path) -> None:
    weights = {
        "pool": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "scale": torch.tensor(0.5),
        "codes": torch.arange(3, dtype=torch.int8),
    }
    checkpoint.save_weights(tmp_path / "best.safetensors", weights)
    back = checkpoint.load_weights(tmp_path / "best.safetensors")
    assert all(torch.equal(weights[name], back[name]) for name in weights)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "gone"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "best.safetensors"
    checkpoint.save_weights(path, {"pool": torch.arange(100.0)})
    data = bytearray(path.read_bytes())
    data[-7] ^= 16
    path.unlink()
    if damage != "gone":
        path.write_bytes({"truncated": data[:100], "flipped": data, "empty": b""}[damage])
    with pytest.raises(DamagedError, match=r"best\.safetensors"):
        checkpoint.load_weights(path)


def test_earlier_weights_are_kept_as_far_as_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EARLIER_BYTES", 2_000)
    trial = TrialFolder(tmp_path)
    for iteration, size in ((10, 800), (20, 800), (30, 800), (40, 3_000), (50, 100)):
        trial.weights(iteration).write_bytes(bytes(size))
        checkpoint.drop_weights(tmp_path, iteration, iteration)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        trial.weights(50).name,
        *(trial.earlier_weights(iteration).name for iteration in (20, 30)),
    ]
