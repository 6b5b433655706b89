"""StudyFolder has every path of a study: nothing else names its files, and a study on disk has no others."""

import ast
from pathlib import Path

from sizewise.config import StudySpec
from sizewise.engine.simulated import Generated, simulate, simulated_engine
from sizewise.store.study_folder import PARTS, StudyFolder, TrialFolder

PACKAGE = Path(__file__).parents[3] / "platform" / "sizewise"


def names() -> set[str]:
    """What the files and folders of a study are called."""
    study = StudyFolder(Path("study"))
    single = [
        getattr(study, name) for name, value in vars(StudyFolder).items() if isinstance(value, property)
    ]
    trial = [TrialFolder(Path("trial")).lock, TrialFolder(Path("trial")).claims]
    return {path.name for path in [*single, *trial]} | set(PARTS)


def test_no_module_builds_a_path_of_a_study_by_hand() -> None:
    found = []
    for file in PACKAGE.rglob("*.py"):
        if file.name == "study_folder.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                right = node.right.value if isinstance(node.right, ast.Constant) else None
                if right in names():
                    found.append(f"{file.relative_to(PACKAGE)}:{node.lineno}: {right}")
    assert found == []


def test_a_study_on_disk_has_no_other_files(tmp_path: Path) -> None:
    spec = StudySpec.model_validate(
        {
            "name": "all",
            "data": "none",
            "search": {"memory_budget": {"low": 2_000, "high": 20_000_000}, "epochs": 2},
            "pruning": {"grace": 0.25},
            "sampler": "random",
            "trials": 3,
        }
    )
    curves, files = Generated(iterations_per_epoch=20), StudyFolder(tmp_path)
    engine = simulated_engine(spec, curves, tmp_path)
    simulate(engine, curves)
    assert engine.front is not None
    engine.front.comparison()  # as a trial that begins is given
    engine.usage.begin(0, 1, cpus=1, gpus=0)
    engine.usage.close()
    known = {files.pruning, files.usage, files.holding}
    for trial in range(3):
        record = files.record(trial)
        known |= {record, record.with_suffix(".before"), files.evaluations(trial)}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == known
