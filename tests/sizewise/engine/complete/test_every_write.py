"""Whatever write a process is killed at, the study goes on from what is then on the disk to the calm end."""

import shutil
from pathlib import Path

import pytest

from real_study import assert_equal, calm_study
from sizewise.store.trials import ledger

STUDY = """\
name: killed
data: {data}
model: {{dim: 8, bottom_mlp: [16], top_mlp: [16]}}
embedding: {{method: {{choices: [robe, qr]}}}}
search: {{memory_budget: {{low: 100x, high: 10x}}, epochs: 1}}
train: {{batch_size: 512, evaluate_every: 0.5, optimizer: adam}}
trials: 2
"""


@pytest.mark.slow
def test_a_kill_at_any_write_changes_nothing(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, calm, images = tmp_path / "killed.yaml", tmp_path / "calm", tmp_path / "images"
    study.write_text(STUDY.format(data=shards))
    replace, append = Path.replace, ledger.append_line

    def image() -> Path:
        """What a kill at this instant leaves, temporary files included."""
        return shutil.copytree(calm, images / f"{len(list(images.glob('*'))):03d}")

    def replaced(self: Path, target: Path) -> Path:
        image()
        return replace(self, target)

    def appended(path: Path, line: bytes) -> None:
        with (image() / path.relative_to(calm)).open("ab") as file:
            file.write(line[: len(line) // 2])
        append(path, line)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replaced)
        patch.setattr(ledger, "append_line", appended)
        calm_study(study, calm)
    left = sorted(images.iterdir())
    assert len(left) > 15
    for folder in left:
        calm_study(study, folder)  # which goes on
        assert_equal(folder, calm)
