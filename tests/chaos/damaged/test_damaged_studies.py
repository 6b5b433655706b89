"""Every kind of file in a study, damaged in every way, in front of every command.

No traceback, no wait without end, and no answer that has changed without a word. Commands are called in this process,
for starting one costs seconds; a trial is trained here too. A sample runs with all tests, the rest with `--chaos`.
"""

import hashlib
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.chaos.damaged.damaged_study import (
    DAMAGES,
    OUTSIDE,
    as_another_user,
    copy_of,
    damage,
    files,
    make_studies,
)

from real_study import TIMED
from sizewise import cli
from sizewise.export import exporting
from sizewise.store.trials.ledger import Ledger
from sizewise_core.errors import InputError
from sizewise_dashboard import snapshots
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare

pytestmark = pytest.mark.slow  # three studies are made first

SECONDS = 10.0  # that a command may take, of processor time: this machine may be busy
READERS: dict[str, tuple[str, ...]] = {
    "all studies": ("status",),
    "status": ("status", "{name}"),
    "one trial": ("status", "{name}", "--trial", "0"),
    "failed trial": ("status", "{name}", "--trial", "1"),
    "trials": ("results", "{name}"),
    "evaluations": ("results", "{name}", "--table", "evaluations"),
    "front": ("results", "{name}", "--table", "front"),
    "choose": ("choose", "{name}"),
    "export": ("export", "{name}", "--trial", "0", "--out", "{out}/model"),
}
SLOW = {"report": ("report", "{name}", "--out", "{out}/report.html")}
# of an answer, what time or the machine decides, or where it was asked
VOLATILE = {
    "last_change",
    "out",
    "bytes",
    "export",
    "runs",
    "problems",
    "seconds_left",
    "measured_on",
    "latency",
}


class Answer(NamedTuple):
    """What a command said: its exit code, the answer in comparable form, and words on standard error."""

    code: int
    answer: Any
    words: str


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("studies")
    for path in (folder, *list(folder.parents)[:2]):  # for a user without rights to get here
        path.chmod(0o755)
    planted.generate(folder / "raw", 4_000, seed=3)
    prepare([folder / "raw" / "day_0.tsv"], folder / "shards", shard_rows=1_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "to_program", lambda model, *_: model)
        patch.setattr(exporting, "_latency", lambda *_: [])
        patch.setattr(exporting.torch.export, "save", _save_digest)
        patch.setattr(exporting.Deployed, "open", lambda folder: None)
        yield make_studies(folder, folder / "shards", patch)


def _save_digest(model: Any, buffer: Any) -> None:
    """Of an export what tells one model's weights from another's, without the seconds that a program takes."""
    state = sorted(model.state_dict().items())
    buffer.write(b"".join(name.encode() + value.numpy().tobytes() for name, value in state))


@contextmanager
def _patience() -> Iterator[None]:
    """End what waits for ever; what only takes long on a busy machine is not what this is about."""

    def late(*_: Any) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    began = time.process_time()
    try:
        yield
        assert time.process_time() - began < SECONDS
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def ask(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Answer]:
    count = iter(range(10**9))

    def call(arguments: tuple[str, ...], runs: Path, name: str) -> Answer:
        out = runs / f"out-{next(count)}"
        filled = [argument.format(name=name, out=out) for argument in arguments]
        if arguments[0] in ("report", "export"):
            out.mkdir()
        monkeypatch.setattr(sys, "argv", ["sizewise", *filled, "--runs", str(runs), "--json"])
        with _patience(), pytest.raises(SystemExit) as ended:
            cli.main()
        said, words = capfd.readouterr()
        code = ended.value.code if isinstance(ended.value.code, int) else 0
        assert "Traceback (most" not in words, words
        assert len(said.splitlines()) == (1 if code == 0 else 0)
        assert "\x1b" not in said + words
        assert "somebody else" not in said + words
        answer = json.loads(said) if said else None
        if answer is not None and arguments[0] == "report":
            page = (out / "report.html").read_text()
            assert "somebody else" not in page
            text = re.sub(
                r"<script.*?</script>|<p class=\"quiet\">Sizewise report[^.]*", "", page, flags=re.DOTALL
            )
            answer["page"] = hashlib.sha256(text.encode()).hexdigest()
        if answer is not None and answer.get("problems"):
            assert words, answer["problems"]
        return Answer(code, _comparable(answer), words)

    return call


def _comparable(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: _comparable(value) for key, value in answer.items() if key not in VOLATILE}
    return [_comparable(item) for item in answer] if isinstance(answer, list) else answer


_CALM: dict[tuple[str, str], Answer] = {}


def _calm(ask: Callable[..., Answer], runs: Path, name: str, command: str, folder: Path) -> Answer:
    """What the command says of the intact study, asked once."""
    if (name, command) not in _CALM:
        alone = folder / "calm" / command.replace(" ", "-")
        copy_of(runs, name, alone)
        said = ask({**READERS, **SLOW, "resume": ("resume", "{name}")}[command], alone, name)
        assert (said.code, said.words) == (0, "") or command == "resume", said
        _CALM[name, command] = said
    return _CALM[name, command]


def _check(
    runs: Path,
    name: str,
    file: str,
    how: str,
    commands: dict[str, tuple[str, ...]],
    ask: Callable[..., Answer],
    tmp_path: Path,
) -> list[str]:
    """What is wrong with the commands' answers about a study in which one file is damaged."""
    there = tmp_path / "runs"
    folder = copy_of(runs, name, there)
    copy_of(runs, "teacher", there)
    if not damage(folder, file, how):
        return []
    wrong = []
    with as_another_user(there, how == "unreadable"):
        for command, arguments in commands.items():
            said = ask(arguments, there, name)
            if command == "all studies":
                states = {s["name"]: s["state"] for s in said.answer["studies"]}
                if said.code or states.get("teacher") != "finished" or name not in states:
                    wrong.append(f"{file}, {how}: {command}: {states}")
                continue
            # Text for people, which is no answer: logs have no checksum, and the report quotes the study file.
            free = file.startswith("logs/") or (command, file, how) == ("report", "study.yaml", DAMAGES[-1])
            if (
                said.code == 0
                and not said.words
                and not free
                and said != _calm(ask, runs, name, command, tmp_path)
            ):
                wrong.append(f"{file}, {how}: {command} changed without a word")
            if said.code not in (0, 1, 2) or (
                said.code and not said.words.startswith("sizewise: ") and not said.words
            ):
                wrong.append(f"{file}, {how}: {command}: exit {said.code}, {said.words!r}")
        listed = {study["name"]: study["state"] for study in snapshots.listed(there)}
        with suppress(InputError):  # which the pages show
            snapshots.read(there, name)
        if listed.get("teacher") != "finished":
            wrong.append(f"{file}, {how}: the page Studies: {listed}")
    return wrong


def _combinations(runs: Path) -> list[tuple[str, str, str]]:
    return [
        (name, file, how)
        for name in ("finished", "interrupted")
        for file in files(runs / name)
        for how in DAMAGES
    ]


@pytest.mark.slow
def test_a_sample_of_damages_before_the_commands_that_read(
    runs: Path, ask: Callable[..., Answer], tmp_path: Path
) -> None:
    """Every damage, and every file, a few times."""
    wrong = []
    combinations = _combinations(runs)
    sample = combinations[:: max(len(combinations) // 40, 1) | 1]  # odd, so that all damages come
    assert {how for _, _, how in sample} == set(DAMAGES)
    quick = {name: READERS[name] for name in ("all studies", "trials", "choose")}
    for number, (name, file, how) in enumerate(sample):
        wrong += _check(runs, name, file, how, quick, ask, tmp_path / str(number))
    assert wrong == []


@pytest.mark.chaos
def test_every_damage_before_every_command(runs: Path, ask: Callable[..., Answer], tmp_path: Path) -> None:
    wrong = []
    for number, (name, file, how) in enumerate(_combinations(runs)):
        try:
            wrong += _check(runs, name, file, how, READERS | SLOW, ask, tmp_path / str(number))
        except BaseException:
            print(f"{name}/{file}, {how}")
            raise
    assert wrong == []


def _found(folder: Path) -> str:
    """What a study found, without what a clock decides."""
    ledger = Ledger(folder)
    found = []
    for number, record in ledger.records().items():
        rows = [{k: v for k, v in row.items() if k not in TIMED} for row in ledger.evaluations(number)]
        test = ledger.test(number)
        found.append((number, record.state, record.params, rows, test and test.scores.auc))
    return repr(found)


def _resumed(runs: Path, file: str, how: str, ask: Callable[..., Answer], tmp_path: Path) -> str:
    """What is wrong with how the interrupted study goes on with one of its files damaged; nothing if all is well."""
    name = "interrupted"
    if name not in _ENDS:
        calm = copy_of(runs, name, tmp_path / "calm")
        said = ask(("resume", name), calm.parent, name)
        assert said.code == 0, said.words
        _ENDS[name] = _found(calm), _lines(said.words, calm)
    folder = copy_of(runs, name, tmp_path / "runs")
    if not damage(folder, file, how):
        return ""
    with as_another_user(folder.parent, how == "unreadable"):
        said = ask(("resume", name), folder.parent, name)
    if how == "a link":
        assert (folder.parent / "outside").read_text() == OUTSIDE
    calm_end, calm_words = _ENDS[name]
    if said.code == 0 and _found(folder) != calm_end and not _lines(said.words, folder) - calm_words:
        return f"{file}, {how}: resume ended otherwise, without a word"
    if said.code not in (0, 1, 2) or (said.code and not _lines(said.words, folder) - calm_words):
        return f"{file}, {how}: exit {said.code}, {said.words!r}"
    return ""


_ENDS: dict[str, tuple[str, set[str]]] = {}


def _lines(words: str, folder: Path) -> set[str]:
    return {line.replace(str(folder.parent), "") for line in words.splitlines()}


@pytest.mark.slow
def test_a_sample_of_damages_before_resume(runs: Path, ask: Callable[..., Answer], tmp_path: Path) -> None:
    """The files by which a study goes on, each damaged in ways that others of its kind are not."""
    sample = [
        ("trials/0002.json", "half"),
        ("trials/0000.json", "another trial's"),
        ("trials/0000.json", "a newer version's"),
        ("evaluations/0000.jsonl", "gone"),
        ("evaluations/0000.jsonl", "a flipped bit"),
        ("study.json", "a flipped bit"),
        ("study.json", "a newer version's"),
        ("driver.json", "empty"),
        ("warm_start.json", "half"),
        ("logs/study.log", "a link"),
        ("usage.jsonl", "a link"),
        ("holding.json", "a pipe"),
        ("study.yaml", "100 MB of one line"),
        ("study.yaml", "half"),
    ]
    assert [file for file, _ in sample if not (runs / "interrupted" / file).is_file()] == []
    wrong = [_resumed(runs, *each, ask, tmp_path / str(number)) for number, each in enumerate(sample)]
    assert [line for line in wrong if line] == []


def test_lines_lost_from_a_study_that_has_ended_come_back(
    runs: Path, ask: Callable[..., Answer], tmp_path: Path
) -> None:
    folder = copy_of(runs, "finished", tmp_path / "runs")
    path = folder / "evaluations" / "0002.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    intact = ask(("choose", "{name}"), folder.parent, "finished")
    path.write_text("".join(lines[:-2]))
    lost = ask(("choose", "{name}"), folder.parent, "finished")
    assert lost.answer != intact.answer
    assert f"evaluations/0002.jsonl holds {len(lines) - 2} of {len(lines)} evaluations" in lost.words
    assert ask(("resume", "{name}"), folder.parent, "finished").code == 0
    assert path.read_text().splitlines(keepends=True) == lines
    assert ask(("choose", "{name}"), folder.parent, "finished") == intact
    assert ask(("resume", "{name}"), folder.parent, "finished").code == 2  # there is nothing to do


@pytest.mark.chaos
def test_every_damage_before_resume(runs: Path, ask: Callable[..., Answer], tmp_path: Path) -> None:
    wrong = []
    for number, (file, how) in enumerate((f, h) for f in files(runs / "interrupted") for h in DAMAGES):
        try:
            wrong.append(_resumed(runs, file, how, ask, tmp_path / str(number)))
        except BaseException:
            print(f"{file}, {how}")
            raise
    assert [line for line in wrong if line] == []
