"""YAML from anyone: a small text that stands for much, or one that is nested too deep, is refused at once."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sizewise.cli.commands.studies import overrides
from sizewise.config import from_text, load
from sizewise_core.errors import InputError
from sizewise_core.files.yaml_files import MAX_BYTES, MAX_VALUES, YamlError, line_of, load_yaml, parse_yaml
from sizewise_prep.raw.layout import Layout

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
FLOW = "[&a [x, x, x, x, x, x, x, x]" + "".join(
    f", &{name} [{', '.join([f'*{before}'] * 8)}]"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "aliases": (BOMB, "holds more than 10,000 values, aliases counted in full"),
    "aliases in one line": (FLOW + "]", "holds more than 10,000 values"),
    "merge keys": ("a: &a {b: 1}\nc: &c {<<: [*a, *d]}\n", "names no value before it"),
    "itself": ("a: &a [*a]\n", "names no value before it"),
    "nested": ("a: " + "[" * 5_000, "nested more than 32 deep"),
    "nested in lines": ("".join(" " * n + "a:\n" for n in range(400)), "nested more than 32 deep"),
    "dashes": ("- " * 50_000, "nested more than 32 deep"),
    "values": ("a: [" + "1," * 100_000 + "]", "holds more than 10,000 values"),
    "size": ("a: " + "x" * MAX_BYTES, "has more than 256 KiB"),
    "number": ("a: " + "9" * 100_000, "."),
    "date": ("a: 2001-99-99", "."),
    "tag": ("a: !!python/object:os.system x", "."),
    "float": ("a: !!float x", "."),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_refused_within_a_second_wherever_it_is_read(tmp_path: Path, kind: str) -> None:
    text, message = HOSTILE[kind]
    path = tmp_path / "file.yaml"
    path.write_text(text)
    reads: list[Callable[[], object]] = [
        lambda: load(path),
        lambda: Layout.load(path),
        lambda: from_text(text.encode(), path),
        lambda: load_yaml(path, plain=True),
        lambda: overrides([f"trials={text}"]),
    ]
    for read in reads:
        began = time.process_time()
        with pytest.raises(InputError) as ended:
            read()
        assert time.process_time() - began < 3
        said = str(ended.value).splitlines()[0].replace(str(tmp_path), "")
        assert len(said) < 300
        assert said.isprintable()
    with pytest.raises(YamlError, match=message):
        parse_yaml(text, plain=True)


def test_honest_text_is_read_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(
        "\ufeffa: &one {low: 1, high: [2, 3]}\nb:\n  c: *one\n  d: {<<: *one, low: 5}\n", encoding="utf-8"
    )
    document = load_yaml(path)
    assert document["b"]["d"]["low"] == 5
    assert document["b"]["c"]["high"] == [2, 3]
    assert line_of(document, ["b", "d"]) == ":4"
    assert line_of(document, ["nothing"]) == ""
    assert type(load_yaml(path, plain=True)) is dict
    many = "columns:\n" + "".join(f"  C{n}: hex\n" for n in range((MAX_VALUES - 3) // 2))
    assert len(parse_yaml(many, plain=True)["columns"]) == (MAX_VALUES - 3) // 2


@pytest.mark.parametrize("content", [b"\xff\xfe\0a", b"\0\0", b"a: b: c"])
def test_what_is_no_yaml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"file\.yaml(:\d+)?: not valid YAML: "):
        load_yaml(tmp_path / "file.yaml")
    with pytest.raises(InputError, match=r"absent\.yaml: cannot be read"):
        load_yaml(tmp_path / "absent.yaml")
