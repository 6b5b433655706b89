"""Studies that learn from a teacher, driven in this process."""

from functools import partial
from pathlib import Path

import real_study
from sizewise import config as study_file
from sizewise.config import StudySpec
from sizewise.embedding import full_bytes
from sizewise.engine.deciding.decisions import Engine
from sizewise.engine.preparing import creating
from sizewise.search.suggest import Search
from sizewise.store.trials.ledger import Ledger
from sizewise.training import loop
from sizewise.training.teachers.teacher_sources import Source
from sizewise_prep.shards.manifest import Manifest

STUDY = """\
name: {name}
data: {data}
model: {{dim: 8, bottom_mlp: [16], top_mlp: [16]}}
embedding: {{method: robe, block_len: 8}}
search: {{memory_budget: {{low: 5kB, high: 40kB}}, epochs: 2, learning_rate: 0.02}}
train: {{batch_size: 128, evaluate_every: 0.5{train}}}
trials: 2
"""
FULL = ", distill: {teacher: full, teachers: 2}"


def load(folder: Path, data: Path, train: str = FULL, name: str = "mine") -> StudySpec:
    path = folder / f"{name}.yaml"
    path.write_text(STUDY.format(name=name, data=data, train=train))
    spec = study_file.load(path)
    return study_file.resolve(spec, Manifest.load(data), str(path))


def engine_of(spec: StudySpec, folder: Path, sources: list[Source] | None = None) -> Engine:
    manifest = Manifest.load(spec.data)
    if not folder.exists():
        folder.mkdir(parents=True)
        creating.create(spec, folder, manifest, [], sources or [])
    search = Search(spec, Ledger(folder), full_bytes(manifest.cardinalities, spec.model.largest_dim))
    return Engine(spec, folder, search, lambda *_: None, teacher=sources or [])


def drive(engine: Engine) -> None:
    """All trials one after another in this process."""
    while (record := engine.next_trial()) is not None:
        payload = engine.payload(record)
        outcome = real_study.one_thread(
            lambda r=record, p=payload: loop.train(
                engine.search.config(r), Path(p["folder"]), partial(engine.evaluated, r.trial_id), **p["how"]
            )
        )
        engine.finished(record.trial_id, outcome.evaluations, outcome.test, outcome.pruned)
