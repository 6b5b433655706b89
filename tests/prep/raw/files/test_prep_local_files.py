"""Files that may be anything: links are not followed, nothing is waited for, and sizes have bounds."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sizewise_core.errors import InputError
from sizewise_core.files.local_files import OddFileError, TooLargeError, read_file
from sizewise_core.stores import storage, storage_contents


def _link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def _socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("devices are made by root alone")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (_link, "a link"),
        (os.mkfifo, "a pipe"),
        (Path.mkdir, "a folder"),
        (_socket, "a socket"),
        (_device, "a device"),
    ],
)
def test_what_is_no_file_is_neither_read_nor_written(
    tmp_path: Path, make: Callable[[Path], None], what: str
) -> None:
    path = tmp_path / "odd.json"
    make(path)
    for use in (
        lambda: storage.read(path),
        lambda: storage.read_end(path, 10),
        lambda: storage.append_line(path, b"line\n"),
    ):
        with pytest.raises(OddFileError, match=what):
            use()
    (error,) = storage_contents.read_all(tmp_path, "*.json").values()
    assert isinstance(error, OddFileError)
    if what != "a folder":
        with pytest.raises(InputError, match=what):
            storage.refuse_odd_files(tmp_path)


def test_a_folder_that_is_a_link_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.json").write_text("{}")
    (tmp_path / "link").symlink_to("there")
    path = tmp_path / "link" / "a.json"
    for use in (
        lambda: storage.read(path),
        lambda: storage.write(path, b"new"),
        lambda: storage.append_line(path, b"line\n"),
        lambda: storage.entries(tmp_path / "link"),
    ):
        with pytest.raises(OddFileError, match="link"):
            use()
    assert (tmp_path / "there" / "a.json").read_text() == "{}"
    # What its user has laid out himself may lie wherever it likes.
    assert storage.read(path, links=True) == b"{}"
    assert len(storage.entries(tmp_path / "link", links=True)) == 1


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "a.json").symlink_to("outside")
    storage.write(tmp_path / "a.json", b"new")
    assert (tmp_path / "outside").read_text() == "mine"
    assert storage.read(tmp_path / "a.json") == b"new"


def test_sizes_have_bounds(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_file(path, most=5) == b"12345"
    with pytest.raises(TooLargeError):
        read_file(path, most=4)
    os.truncate(path, 1 << 40)  # a file of a terabyte, none of it on the disk
    with pytest.raises(TooLargeError):
        read_file(path, most=1 << 20)
    assert storage.read_end(path, 3) == b"\0\0\0"


def test_names_without_a_folder_are_of_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage.append_line(Path("a"), b"1\n")
    assert storage.read(Path("a")) == b"1\n"
    with pytest.raises(FileNotFoundError, match="none"):
        storage.read(Path("none"))
