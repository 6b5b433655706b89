"""Exports from somebody else: what could run code is refused before PyTorch sees it, and what we write is taken."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.sizewise.export.export_programs import CARDINALITIES, CASES, program

from sizewise.export import Deployed, Description
from sizewise.export.archive import checked
from sizewise.export.archive_schema import OPERATORS
from sizewise_core.errors import InputError

MODEL = Path(__file__).parents[2] / "data" / "version_0_1" / "model"
GRAPH = "archive/models/model.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"
CONSTANTS = "archive/data/constants/model_constants_config.json"
Members = dict[str, bytes]


@pytest.mark.slow
def test_programs_of_every_method_are_taken_and_compute_the_same() -> None:
    """And the list of operators has none that no export needs."""
    found: set[str] = set()
    for case in CASES:
        content = program(case)
        found |= set(operators(json.loads(members_of(content)[GRAPH])["graph_module"]["graph"]))
        ours = torch.export.load(checked(content, Path("model.pt2"))).module()
        plain = torch.export.load(io.BytesIO(content)).module()
        columns = len(CARDINALITIES) - case.lists
        rows = [torch.rand(5, case.dense), torch.randint(0, 2**32, (5, columns)).to(torch.uint32)]
        if case.lists:
            lengths = torch.randint(0, 4, (5, case.lists))
            rows += [torch.randint(0, 60, (int(lengths.sum()),)).to(torch.uint32), lengths]
        assert torch.equal(ours(*rows), plain(*rows)), case
    assert found == OPERATORS  # add here what only exports of earlier versions call


def operators(graph: dict[str, Any]) -> Iterator[str]:
    for node in graph["nodes"]:
        yield node["target"]
        for argument in node["inputs"]:
            if "as_graph" in argument["arg"]:
                yield from operators(argument["arg"]["as_graph"]["graph"])


def members_of(content: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def export_with(content: bytes, folder: Path) -> Path:
    """An export whose description fits the program, as an attacker would make it."""
    folder.mkdir()
    (folder / "model.pt2").write_bytes(content)
    description = json.loads((MODEL / "model.json").read_text())
    description |= {"sha256": hashlib.sha256(content).hexdigest(), "program_bytes": len(content)}
    (folder / "model.json").write_text(json.dumps(description))
    return folder


class Touches:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def in_json(member: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Members, Path], None]:
    def apply(members: Members, mark: Path) -> None:
        content = json.loads(members[member])
        change(content)
        members[member] = json.dumps(content).replace("MARK", str(mark)).encode()

    return apply


def pickled_weight(members: Members, mark: Path) -> None:
    members["archive/data/weights/weight_8"] = saved(mark)
    in_json(WEIGHTS, lambda config: last(config["config"]).update(use_pickle=True))(members, mark)


def pickled_constant(members: Members, mark: Path) -> None:
    members["archive/data/constants/opaque_obj_0"] = pickle.dumps(Touches(mark))
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    in_json(CONSTANTS, lambda config: config["config"].update(model=entry))(members, mark)


def saved(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touches(mark), buffer)
    return buffer.getvalue()


def last(values: dict[str, Any]) -> Any:
    return values[list(values)[-1]]


def graph(change: Callable[[dict[str, Any]], object]) -> Callable[[Members, Path], None]:
    return in_json(GRAPH, lambda content: change(content["graph_module"]["graph"]))


def calls_a_function(content: dict[str, Any]) -> None:
    """`torch.os.mkdir`, called when a row is scored."""
    node = content["nodes"][-1]
    node["target"] = "torch.os.mkdir"
    node["inputs"] = [{"name": "", "arg": {"as_string": "MARK"}, "kind": 1}]


def renames_an_input(content: dict[str, Any]) -> None:
    """Names of inputs stand in the source that PyTorch makes of a graph, and runs."""
    evil = "tokens, x=__import__('os').mkdir('MARK')"
    text = json.dumps(content).replace('"tokens"', f'"{evil}"')
    content.clear()
    content.update(json.loads(text))


EVIL_EXPRESSION = "__import__('os').mkdir('MARK') or Symbol('s37', positive=True, integer=True)"

# Those that make the mark where nobody looks into the archive first.
RUNS_CODE: dict[str, tuple[str, Callable[[Members, Path], None]]] = {
    "pickled weight": ("a pickle", pickled_weight),
    "pickled constant": ("opaque_obj_0", pickled_constant),
    "sample inputs": (
        "sample inputs",
        lambda members, mark: members.update({"archive/data/sample_inputs/model.pt": saved(mark)}),
    ),
    "legacy weights": (
        "weights/model.pt",
        lambda members, mark: members.update({"archive/data/weights/model.pt": saved(mark)}),
    ),
    "expression": (
        "expr_str",
        graph(lambda g: last(g["sym_int_values"])["as_expr"].update(expr_str=EVIL_EXPRESSION)),
    ),
    "name": (
        "name",
        in_json(GRAPH, renames_an_input),
    ),
}

STRANGE: dict[str, tuple[str, Callable[[Members, Path], object]]] = {
    "guard": (
        "guards_code",
        in_json(GRAPH, lambda c: c.update(guards_code=["__import__('os').mkdir('MARK') is None"])),
    ),
    "function": ("operator 'torch.os.mkdir'", graph(calls_a_function)),
    "compiled code": (
        "data/aotinductor/model/x.so",
        lambda members, mark: members.update({"archive/data/aotinductor/model/x.so": b""}),
    ),
    "extra file": ("extra/x", lambda members, mark: members.update({"archive/extra/x": b""})),
    "other root": ("member 'elsewhere/x'", lambda members, mark: members.update({"elsewhere/x": b""})),
    "way out": (
        "member '../x'",
        lambda members, mark: members.update({"archive/../x": b""}),
    ),
    "second program": (
        "models/other.json",
        lambda members, mark: members.update({"archive/models/other.json": members[GRAPH]}),
    ),
    "no graph": ("no member models/model.json", lambda members, mark: members.pop(GRAPH)),
    "higher order": (
        "operator 'torch.ops.higher_order.cond'",
        graph(lambda g: g["nodes"][-1].update(target="torch.ops.higher_order.cond")),
    ),
    "custom operator": (
        "operator '#own:op'",
        graph(lambda g: g["nodes"][-1].update(target="#own:op")),
    ),
    "custom object": ("custom_obj_values", graph(lambda g: g.update(custom_obj_values={"x": {}}))),
    "size beyond the file": (
        "no member of the size",
        in_json(WEIGHTS, lambda c: last(c["config"])["tensor_meta"].update(sizes=[{"as_int": 10**12}])),
    ),
    "size of 31 digits": (
        "sizes",
        in_json(WEIGHTS, lambda c: last(c["config"])["tensor_meta"].update(sizes=[{"as_int": 10**30}])),
    ),
    "member of another folder": (
        "path_name",
        in_json(WEIGHTS, lambda c: last(c["config"]).update(path_name="../../x")),
    ),
    "unknown field": ("more", in_json(GRAPH, lambda c: c.update(more=1))),
    "nested": (
        "recursion limit",
        lambda members, mark: members.update({GRAPH: b"[" * 100_000}),
    ),
    "no JSON": ("Invalid JSON", lambda members, mark: members.update({WEIGHTS: b"\xff"})),
}


@pytest.mark.parametrize("attack", [*RUNS_CODE, *STRANGE])
def test_what_no_export_holds_is_refused_and_nothing_of_it_runs(attack: str, tmp_path: Path) -> None:
    message, change = {**RUNS_CODE, **STRANGE}[attack]
    members, mark = members_of((MODEL / "model.pt2").read_bytes()), tmp_path / "mark"
    change(members, mark)
    folder = export_with(archive_of(members), tmp_path / "model")
    with pytest.raises(InputError) as refused:
        Deployed.open(folder)
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"{folder / 'model.pt2'}: ")
    assert len(str(refused.value)) < 220 + len(str(folder))
    assert not mark.exists()


@pytest.mark.slow
def test_these_attacks_work_on_whoever_loads_the_file_himself(tmp_path: Path) -> None:
    """Else the test above would prove nothing. In a process of its own: PyTorch keeps state of what failed."""
    marks = []
    for attack, (_, change) in RUNS_CODE.items():
        members, mark = members_of((MODEL / "model.pt2").read_bytes()), tmp_path / f"mark {attack}"
        change(members, mark)
        export_with(archive_of(members), tmp_path / attack)
        marks.append(mark)
    script = (
        "import contextlib, pathlib, sys, torch\n"
        "for file in sorted(pathlib.Path(sys.argv[1]).glob('*/model.pt2')):\n"
        "    with contextlib.suppress(Exception):\n"
        "        module = torch.export.load(file).module()\n"
        "        module(torch.zeros(2, 13), torch.zeros(2, 26, dtype=torch.uint32))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True)
    assert [mark.name for mark in marks if not mark.exists()] == []


def test_archives_that_two_readers_could_read_differently_are_refused(tmp_path: Path) -> None:
    content = (MODEL / "model.pt2").read_bytes()
    members = members_of(content)
    with pytest.raises(InputError, match="is compressed or encrypted"):
        checked(archive_of(members, zipfile.ZIP_DEFLATED), Path("model.pt2"))
    buffer = io.BytesIO(archive_of(members))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(GRAPH, b"{}")
    with pytest.raises(InputError, match=r"member 'archive/models/model\.json'"):
        checked(buffer.getvalue(), Path("model.pt2"))
    many = {f"archive/data/weights/weight_{number}": b"" for number in range(10_001)}
    with pytest.raises(InputError, match=r"10,0\d\d members"):
        checked(archive_of(members | many), Path("model.pt2"))
    for cut in (0, 1, 100, len(content) // 2, len(content) - 1):
        with pytest.raises(InputError, match="no archive that can be read"):
            checked(content[:cut], Path("model.pt2"))
    # Bytes before, between and behind the members do not reach PyTorch.
    around = checked(b"#!/bin/sh\n" + archive_of(members), Path("x")).getvalue()
    assert members_of(around) == members_of(checked(content, Path("x")).getvalue())
    assert b"/bin/sh" not in around


def test_flipped_bytes_are_refused_or_change_numbers_at_most(tmp_path: Path) -> None:
    """Whoever makes the file also makes its digest, so the digest is not what saves the reader."""
    content = (MODEL / "model.pt2").read_bytes()
    numbers, opened = np.random.default_rng(1), 0
    for place in numbers.integers(0, len(content), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(numbers.integers(8))
        folder = export_with(bytes(changed), tmp_path / "model")
        try:
            answer = Deployed.open(folder)(np.zeros((3, 13), np.float32), np.zeros((3, 26), np.uint32))
            opened += answer.shape == (3,)
        except InputError:
            pass
        shutil.rmtree(folder)
    assert opened > 0  # most flips are found by a member's own checksum; some are in nothing that is read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"program_bytes": 10}, "has more than 10 bytes"),
        ({"program_bytes": -1}, "program_bytes"),
        ({"study": "\x1b[2J"}, "study"),
        ({"trial_id": 10**30}, "trial_id"),
        ({"layout": {"columns": {"label": "label"}}}, "layout"),
        ({"schema_version": 2}, "schema_version"),
        ({"sha256": "x"}, "sha256"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    description = json.loads((MODEL / "model.json").read_text()) | change
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=message) as refused:
        Deployed.open(tmp_path / "model")
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


def test_a_pipe_for_a_file_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("model.json", "model.pt2"):
        folder = tmp_path / name
        shutil.copytree(MODEL, folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(InputError, match="is no regular file"):
            Deployed.open(folder)


def sealed_export(folder: Path, **changes: Any) -> Path:
    """The export of version 0.1, as this version would describe it."""
    shutil.copytree(MODEL, folder)
    description = Description.of_text((MODEL / "model.json").read_bytes())
    (folder / "model.json").write_bytes(description.model_copy(update=changes).text())
    return folder


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "model.json",
            lambda text: text.replace(b'"trial_id": 0', b'"trial_id": 2'),
            "not match its checksum: it was",
        ),
        (
            "model.json",
            lambda text: json.dumps(json.loads(text) | {"tokens": "mlperf"}),
            "not match its checksum",
        ),
        (
            "model.json",
            lambda text: json.dumps(json.loads(text), indent=2),
            "written anew by another program",
        ),
        ("model.json", lambda text: text[:-30], "not valid JSON: it was edited, or copied incompletely"),
        ("model.json", lambda text: "", "empty: it was"),
        ("model.pt2", lambda content: content[:-1000], "is damaged, or of another export than model.json"),
        (
            "model.pt2",
            lambda content: content[:-1] + b"x",
            "is damaged, or of another export than model.json",
        ),
    ],
)
def test_an_export_that_was_edited_or_copied_in_part_is_refused(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes | str], said: str
) -> None:
    """By its checksums; what versions without one in model.json wrote is taken as it is."""
    folder = sealed_export(tmp_path / "model")
    assert Deployed.open(folder).description == Deployed.open(MODEL).description
    changed = change((folder / name).read_bytes())
    (folder / name).write_bytes(changed.encode() if isinstance(changed, str) else changed)
    with pytest.raises(InputError, match=said) as refused:
        Deployed.open(folder)
    assert str(refused.value).endswith("export the trial again")
    assert len(str(refused.value).replace(str(tmp_path), "")) < 200


def test_a_description_beside_the_program_of_another_export_is_refused(tmp_path: Path) -> None:
    folder = sealed_export(tmp_path / "model", sha256="0" * 64)
    with pytest.raises(
        InputError, match=r"model\.pt2: is damaged, or of another export than model\.json beside it"
    ):
        Deployed.open(folder)
