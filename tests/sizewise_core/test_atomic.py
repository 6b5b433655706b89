"""Files and folders that are whole or not there."""

import hashlib
import io
from pathlib import Path

import pytest

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import HashingWriter, atomic_file, atomic_folder, write_atomic


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomic(path, b"old")

    def fail() -> None:
        with atomic_file(path) as stream:
            stream.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with atomic_folder(out) as working:
        (working / "a").write_text("a")
        assert not out.exists()
    assert [entry.name for entry in out.iterdir()] == ["a"]
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "out") as working:
            (working / "a").write_text("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial"
    (left / "sub").mkdir(parents=True)
    (left / "sub" / "old").write_text("old")
    with atomic_folder(tmp_path / "out") as working:
        (working / "new").write_text("new")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["new"]


def test_two_writers_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    def second() -> None:
        with atomic_folder(tmp_path / "out"):
            pass

    with atomic_folder(tmp_path / "out") as working:
        (working / "a").write_text("first")
        with pytest.raises(InputError, match="another process is writing"):
            second()
    assert (tmp_path / "out" / "a").read_text() == "first"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def below() -> None:
        with atomic_folder(tmp_path / "file" / "out"):
            pass

    with pytest.raises(InputError, match="out: cannot be written"):
        below()


def test_the_digest_is_that_of_what_was_written() -> None:
    stream = io.BytesIO()
    writer = HashingWriter(stream)
    writer.write(b"ab")
    writer.write(memoryview(b"cd"))
    assert stream.getvalue() == b"abcd"
    assert (writer.bytes, writer.tell(), writer.sha256) == (4, 4, hashlib.sha256(b"abcd").hexdigest())
