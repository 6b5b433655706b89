"""A study's mirror in real Optuna storages: SQLite, and a PostgreSQL server of the test's own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState
from tests.sizewise.search.postgres import PASSWORD, PROGRAMS, PostgreSQL

from sizewise.config import StudySpec
from sizewise.metrics.evaluation import Evaluation
from sizewise.search.suggest import Search
from sizewise.search.with_optuna.mirror import mirrored, storage_url
from sizewise.store.trials.ledger import Ledger
from sizewise_core.errors import InputError

FULL_BYTES = 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    if PROGRAMS is None:
        pytest.skip("PostgreSQL is not installed")
    started = PostgreSQL()
    yield started
    started.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/optuna.db"
    return str(request.getfixturevalue("server").url)


def make_spec(name: str, **changes: Any) -> StudySpec:
    fields = {
        "name": name,
        "data": "/data",
        "embedding": {"method": "robe", "block_len": {"choices": [4, 8]}},
        "search": {"memory_budget": {"low": 2000, "high": 100_000}},
        "trials": 6,
    }
    return StudySpec.model_validate(fields | changes)


@pytest.fixture
def spec(request: pytest.FixtureRequest) -> StudySpec:
    return make_spec(request.node.name.translate(str.maketrans("[]", "--")).rstrip("-"))


def evaluation(iteration: int, auc: float) -> Evaluation:
    return Evaluation(
        {"iteration": iteration, "epoch": 1.0, "auc": auc, "logloss": 0.5, "embedding_bytes": 2000}
    )


def drive(
    search: Search, tell: Callable[..., None], until: int | None = None, ends: tuple[str, ...] = ()
) -> None:
    """The study's remaining trials, or `until` so many, without training; `ends` may say "failed" or "open"."""
    for count in range(search.remaining if until is None else until):
        record = search.ask()
        tell("started", record, None)
        end = ends[count] if count < len(ends) else "finished"
        rows = [evaluation(10 * (k + 1), 0.7 + 0.01 * record.trial_id + 0.001 * k) for k in range(2)]
        for row in rows:
            search.ledger.append_evaluation(record.trial_id, row)
            tell("evaluated", record, row)
        if end == "finished":
            closed = search.finish(record.trial_id, rows)
            tell("finished", closed, closed.values)
        elif end == "failed":
            tell("failed", search.fail(record.trial_id, "it raised"), None)


def start(spec: StudySpec, folder: Path) -> Search:
    return Search(spec, Ledger(folder), FULL_BYTES)


def mirror(search: Search, url: str, warn: Callable[[str], None]) -> Any:
    return mirrored(storage_url(url), search.spec, search.ledger, FULL_BYTES, lambda *_: None, warn)


def load(spec: StudySpec, url: str) -> optuna.Study:
    return optuna.load_study(
        study_name=spec.name, storage=storage_url(url).render_as_string(hide_password=False)
    )


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_the_mirror_holds_what_the_ledger_does(spec: StudySpec, url: str, tmp_path: Path) -> None:
    search = start(spec, tmp_path)
    with mirror(search, url, no_warning) as tell:
        drive(search, tell, 3, ("finished", "failed", "open"))
    study = load(spec, url)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
    assert [d.name.lower() for d in study.directions] == list(spec.objectives.values())
    assert study.metric_names == list(spec.objectives)
    for trial, record in zip(study.trials, search.records.values(), strict=True):
        assert trial.params == record.params
        assert trial.distributions["memory_budget"] == optuna.distributions.FloatDistribution(
            2000, 100_000, log=True
        )
        assert trial.user_attrs["config"] == record.config
    finished, failed, _ = study.trials
    assert finished.values == [0.701, 2000, 20]
    assert [row["auc"] for row in finished.user_attrs["evaluations"]] == [0.7, 0.701]
    assert failed.user_attrs["error"] == "it raised"
    assert [t.number for t in study.best_trials] == [0]  # Optuna's own tools read it

    again = start(spec, tmp_path)  # the study goes on, in another process with an empty memory
    with mirror(again, url, no_warning) as tell:
        drive(again, tell)
    study = load(spec, url)
    assert [t.user_attrs["trial_id"] for t in study.trials] == list(range(6))
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", *["COMPLETE"] * 4]
    assert study.trials[2].user_attrs["attempts"] == 2


def test_one_objective_has_intermediate_values(url: str, tmp_path: Path, spec: StudySpec) -> None:
    search = start(make_spec(spec.name, objectives={"auc": "maximize"}), tmp_path)
    with mirror(search, url, no_warning) as tell:
        drive(search, tell, 1)
    (trial,) = load(spec, url).trials
    assert trial.intermediate_values == {10: 0.7, 20: 0.701}
    assert trial.value == 0.701


CHILD = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_mirror as t
folder, name, url, kill = Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
search, seen = t.start(t.make_spec(name), folder), []
def tell(event, record, values):
    both(event, record, values)
    seen.append(event)
    time.sleep(0.01 * kill)
    if len(seen) == kill:
        os.kill(os.getpid(), signal.SIGKILL)
with t.mirror(search, url, t.no_warning) as both:
    t.drive(search, tell)
"""


@pytest.mark.slow
def test_kills_leave_neither_duplicates_nor_trials_that_run_for_ever(
    spec: StudySpec, url: str, tmp_path: Path
) -> None:
    code = CHILD.format(tests=str(Path(__file__).parent))
    path = os.pathsep.join(path for path in sys.path if path)
    for kill in (3, 1, 0):  # events that each attempt lives for; the last one to the end
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), spec.name, url, str(kill)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr
    study, records = load(spec, url), Ledger(tmp_path).records()
    assert sorted(t.user_attrs["trial_id"] for t in study.trials) == list(range(6))
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    for trial in study.trials:
        assert trial.params == records[trial.user_attrs["trial_id"]].params


def test_a_server_that_is_down_does_not_matter_and_is_caught_up(
    spec: StudySpec, server: PostgreSQL, tmp_path: Path
) -> None:
    said: list[str] = []
    search = start(spec, tmp_path)
    with mirror(search, server.url, said.append) as tell:
        drive(search, tell, 1)
        server.stop()
        drive(search, tell, 2)
    server.start()
    assert len(said) == 1
    assert "the study goes on" in said[0]
    assert PASSWORD not in said[0]
    assert [r.state for r in search.records.values()] == ["finished"] * 3

    again = start(spec, tmp_path)
    with mirror(again, server.url, no_warning) as tell:
        drive(again, tell, 0)
    study = load(spec, server.url)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 3


def test_another_study_of_the_name_is_left_alone(url: str, spec: StudySpec, tmp_path: Path) -> None:
    text = storage_url(url).render_as_string(hide_password=False)
    theirs = optuna.create_study(study_name=spec.name, storage=text, directions=["minimize"])
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    said: list[str] = []
    search = start(spec, tmp_path)
    with mirror(search, url, said.append) as tell:
        drive(search, tell, 1)
    assert len(load(spec, url).trials) == 1
    assert len(said) == 1
    assert PASSWORD not in said[0]


def created(folder: Path, when: float, rows: str) -> Path:
    """A study's folder with what a study's own start writes there."""
    folder.mkdir(exist_ok=True)
    (folder / "study.json").write_text(json.dumps({"created": when, "data": {"fingerprint": rows}}))
    return folder


OTHERS: dict[str, tuple[dict[str, Any], tuple[float, str]]] = {
    "seed": ({"seed": 2}, (1.0, "rows")),
    "search": ({"search": {"memory_budget": {"low": 2000, "high": 90_000}}}, (1.0, "rows")),
    "fixed setting": ({"train": {"batch_size": 256}}, (1.0, "rows")),
    "data elsewhere": ({"data": "/other"}, (1.0, "other rows")),
    "data in the same folder": ({}, (1.0, "other rows")),
    "objectives": ({"objectives": {"auc": "maximize"}}, (1.0, "rows")),
    "the same again": ({}, (2.0, "rows")),
}


@pytest.mark.slow
def test_two_studies_of_one_name_do_not_mix(url: str, spec: StudySpec, tmp_path: Path) -> None:
    """Whatever differs: the old trials stay as they are, it is said in a line, and the new study goes on."""
    first = start(spec, created(tmp_path / "first", 1.0, "rows"))
    with mirror(first, url, no_warning) as tell:
        drive(first, tell, 2, ("finished", "open"))
    before = load(spec, url).trials
    for number, (changes, facts) in enumerate(OTHERS.values()):
        said: list[str] = []
        other = start(make_spec(spec.name, **changes), created(tmp_path / f"other{number}", *facts))
        with mirror(other, url, said.append) as tell:
            drive(other, tell, 2)
        assert [record.state for record in other.records.values()] == ["finished"] * 2
        (line,) = said
        assert "already has another study of this name" in line
        assert "\n" not in line
        assert PASSWORD not in line
        assert load(spec, url).trials == before
    # The first one goes on: its data moved, more trials are wanted.
    moved = start(make_spec(spec.name, data="/moved", trials=7), tmp_path / "first")
    with mirror(moved, url, no_warning) as tell:
        drive(moved, tell, 2)
    assert [trial.state.name for trial in load(spec, url).trials] == ["COMPLETE"] * 3
    # And so after its file was edited, for all trials in the storage are its own.
    wider = start(
        make_spec(spec.name, search={"memory_budget": {"low": 1000, "high": 200_000}}), tmp_path / "first"
    )
    with mirror(wider, url, no_warning) as tell:
        drive(wider, tell, 1)
    assert len(load(spec, url).trials) == 4


def test_a_mirror_of_version_0_1_is_known_by_its_trials(url: str, spec: StudySpec, tmp_path: Path) -> None:
    def forget() -> None:
        """Make the mirror one of version 0.1, which kept no digest."""
        engine = sqlalchemy.create_engine(storage_url(url))
        with engine.begin() as connection:
            where = "key = 'identity' AND study_id IN (SELECT study_id FROM studies WHERE study_name = :name)"
            delete = sqlalchemy.text(f"DELETE FROM study_user_attributes WHERE {where}")
            assert connection.execute(delete, {"name": spec.name}).rowcount == 1
        engine.dispose()

    first = start(spec, tmp_path / "first")
    with mirror(first, url, no_warning) as tell:
        drive(first, tell, 3, ("finished", "failed", "open"))
    forget()
    again = start(spec, tmp_path / "first")
    with mirror(again, url, no_warning) as tell:
        drive(again, tell, 1)
    assert [trial.state.name for trial in load(spec, url).trials] == ["COMPLETE", "FAIL", "COMPLETE"]

    forget()
    said: list[str] = []
    other = start(spec, tmp_path / "other")  # of the same seed, search and data, but with a trial only
    with mirror(other, url, said.append) as tell:
        drive(other, tell, 1)
    assert len(said) == 1
    assert "identity" not in load(spec, url).user_attrs
    assert len(load(spec, url).trials) == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("secret:word@here", "not a database's address"),
        ("nosuch://me:secret@here/db", "no such kind of database"),
        ("mysql+pymysql://me:secret@here/db", "driver is missing"),
    ],
)
def test_an_address_that_cannot_work_is_refused_without_its_password(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as error:
        storage_url(text)
    assert "secret" not in str(error.value)
