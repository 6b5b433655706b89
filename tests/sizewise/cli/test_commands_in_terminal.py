"""The main commands on a terminal: what a person sees, and sees last, at 80 and at 120 columns."""

import json
import re
from pathlib import Path

import pytest

from pseudo_terminal import Shown, in_terminal
from real_study import STUDY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("terminal")


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Path:
    """Made on a terminal, as all here."""
    made = in_terminal("generate", folder / "raw", "--rows", 4_000)
    assert made.code == 0
    assert re.search(r"raw: 4,000 rows; the best possible AUC on them is 0\.\d{4}$", made.text.rstrip())
    made = in_terminal("prep", folder / "raw" / "day_0.tsv", "--out", folder / "shards")
    assert made.code == 0
    assert made.text.rstrip().endswith("shards: 4,000 rows in 3 shards")
    return folder / "shards"


@pytest.fixture(scope="module")
def ran(folder: Path, prepared: Path) -> Shown:
    """A study of two trials, run at 80 columns."""
    study = folder / "study.yaml"
    # Long enough for the bar, which is drawn some times a second, to show a trial between two evaluations.
    text = STUDY.format(data=prepared).replace("trials: 3", "trials: 2")
    study.write_text(text.replace("epochs: {low: 5, high: 6}", "epochs: 20"))
    return in_terminal("run", study, "--runs", folder / "runs", columns=80)


def ends_with_front_and_answer(shown: Shown, columns: int) -> None:
    """The last that is seen: a table of the front, a row a trial, and the answer's sentence."""
    assert shown.code == 0, shown.text
    title, front = shown.text.split("Pareto front of killed", 1)
    assert "trial 0: AUC 0." in title
    rows = [line for line in front.splitlines() if re.match(r" *\d+  0\.\d{4}  ", line)]
    assert rows
    assert "embeddings" in front
    assert re.search(
        r"(AUC|tables|iterations|higher|lower|tell|rows|enough)[^\n]*\.$", shown.text.rstrip()
    ), shown.text
    sentence = " ".join(shown.text.rsplit("\n", 9)[1:])
    assert re.search(r"The (best|smallest) model|Only one trial", sentence)
    assert "…" not in shown.text
    prose = [line for line in shown.lines if "`" not in line]
    assert all(len(line) <= columns for line in prose)


def test_run_says_what_it_waits_for_and_ends_with_the_front_and_the_answer(ran: Shown) -> None:
    ends_with_front_and_answer(ran, 80)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ran.raw)
    at = 0
    for waited_for in (
        "loading PyTorch",
        "0 of 2, starting Ray",
        "starting its workers",
        "training, evaluates every 0.5 epochs",
    ):
        assert waited_for in drawn[at:], waited_for
        at = drawn.index(waited_for, at)
    assert re.search(r"epoch \d+\.\d\d of 20, AUC 0\.\d{4}", drawn)
    assert re.search(r"trials .* 1 of 2, best AUC 0\.\d{4}", drawn)
    # Few validation rows are said before anything is trained, and with the answer.
    assert "validation has 400 rows" in " ".join(drawn[: drawn.index("trial 0: AUC 0.")].split())
    assert "With 400 validation rows, differences below" in " ".join(ran.text.split())
    # A terminal where the command is killed must not be left without its cursor.
    assert "\x1b[?25l" not in ran.raw


def test_resume_ends_with_the_front_and_the_answer(ran: Shown, folder: Path) -> None:
    path = folder / "runs" / "killed" / "study.yaml"
    text = path.read_text()
    path.write_text(text[: text.rindex("# crc32")].replace("trials: 2", "trials: 3"))
    resumed = in_terminal("resume", "killed", "--runs", folder / "runs", columns=120)
    ends_with_front_and_answer(Shown(resumed.code, ["trial 0: AUC 0.", *resumed.lines], resumed.raw), 120)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", resumed.raw)
    assert re.search(r"trials .* 2 of 3", drawn)


# Several commands in one process, whose start takes longer than they do.
ONE_AFTER_ANOTHER = """
import json, sys
from sizewise.command import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["sizewise", *command]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (command, end.code)
    print("end of", command[0], flush=True)
"""


@pytest.mark.parametrize("columns", [80, 120])
def test_reading_commands_fit_the_terminal(ran: Shown, folder: Path, columns: int) -> None:
    about = ("killed", "--runs", str(folder / "runs"))
    commands = [("results", *about), ("status", *about[1:]), ("choose", *about)]
    if columns == 80:
        commands += [("results", *about, "--table", "evaluations", "--wide"), ("status", *about)]
    program = ("-c", ONE_AFTER_ANOTHER, json.dumps(commands))
    shown = in_terminal(columns=columns, program=program)
    assert shown.code == 0, shown.text
    assert "…" not in shown.text
    *each, rest = re.split(r"^end of \w+$", shown.text, flags=re.MULTILINE)
    assert (len(each), rest.strip()) == (len(commands), "")
    for text in each:
        assert re.search(r"\b0\.\d{4}\b|cost so far", text), text
    assert all(len(line) <= columns for line in shown.lines if "`" not in line and "sizewise" not in line)
