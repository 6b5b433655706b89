"""The folder of a user in the temporary folder: never one that another user has put there."""

import os
import tempfile
from pathlib import Path

import pytest

from sizewise_core.errors import InputError
from sizewise_core.files.own_folder import own_folder


def test_it_is_made_for_this_user_alone_and_nobody_elses_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = own_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert own_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700

    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="was made by another user: set TMPDIR"):
        own_folder()
    folder.unlink()
    folder.write_text("")
    with pytest.raises(InputError, match=r"cannot be made .*: set TMPDIR"):
        own_folder()
    folder.unlink()
    if os.getuid() == 0:
        folder.mkdir()
        os.chown(folder, 65534, 65534)
        with pytest.raises(InputError, match="was made by another user: set TMPDIR"):
            own_folder()
