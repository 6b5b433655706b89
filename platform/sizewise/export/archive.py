"""Checks a PyTorch program's file before PyTorch reads it.

    archive = checked(path.read_bytes(), path)        # InputError, or an archive that is safe to load
    program = torch.export.load(archive)

A `.pt2` file from another person is code. `torch.export.load` unpickles weights, constants and sample inputs where the
file says so, evaluates the expressions of symbolic sizes and of guards, writes the names in the graph into Python
source that it runs, and calls any function of `torch`, `math` or `operator` that a node names. So only what exports of
Sizewise hold is accepted: these members of the archive, uncompressed; these operators; names that are identifiers;
sizes that are numbers or products with the number of rows. PyTorch loads not the file itself but an archive that is
written from what was checked, because two readers of one damaged archive may find different things in it.
"""

import io
import re
import zipfile
import zlib
from pathlib import Path

from pydantic import ValidationError

from sizewise.export.archive_schema import Payloads, Program, RefusedError
from sizewise_core.errors import InputError, first_problem, shown

_ROOT = "archive/"
_GRAPH, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"
_CONFIGS = {
    _WEIGHTS: f"{_WEIGHTS}model_weights_config.json",
    _CONSTANTS: f"{_CONSTANTS}model_constants_config.json",
}
_NUMBERS = re.compile(r"data/(weights/weight_[0-9]{1,5}|constants/tensor_[0-9]{1,5})")
_FIXED = {
    "archive_format": re.compile(rb"pt2"),
    "archive_version": re.compile(rb"[0-9]{1,4}"),
    ".data/version": re.compile(rb"[0-9]{1,4}\n"),
    "byteorder": re.compile(rb"little"),
    ".data/serialization_id": re.compile(rb"[0-9]{1,64}"),
    # Sample inputs would be a pickle.
    _SAMPLES: re.compile(b""),
}
_DESCRIBING = {_GRAPH, *_CONFIGS.values()}
_NEEDED = {*_DESCRIBING, "archive_format", "archive_version", _SAMPLES}
_MOST_MEMBERS, _MOST_JSON = 10_000, 64 << 20


def checked(content: bytes, path: Path) -> io.BytesIO:
    """A new archive with the content of a PyTorch program's file, if that is what exports of Sizewise hold.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        InputError: it holds anything else.
    """
    try:
        return _rewritten(content)
    except ValidationError as error:
        raise _refusal(path, first_problem(error)) from None
    except RefusedError as error:
        raise _refusal(path, str(error)) from None


def fault(content: bytes) -> str:
    """Why `checked` would refuse an archive; empty where it would not."""
    try:
        _rewritten(content)
    except ValidationError as error:
        return first_problem(error)
    except RefusedError as error:
        return str(error)
    return ""


def _rewritten(content: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as anew:
        described, sizes = _copied(content, anew)
        program = Program.model_validate_json(described[_GRAPH])
        anew.writestr(_ROOT + _GRAPH, program.model_dump_json(exclude_unset=True))
        for folder, name in _CONFIGS.items():
            payloads = Payloads.model_validate_json(described[name])
            payloads.check(folder, sizes)
            anew.writestr(_ROOT + name, payloads.model_dump_json(exclude_unset=True))
    buffer.seek(0)
    return buffer


def _refusal(path: Path, problem: str) -> InputError:
    return InputError(
        f"{path}: is not loaded: programs can run code, and this is none that Sizewise exports ({problem})"
    )


def _copied(content: bytes, anew: zipfile.ZipFile) -> tuple[dict[str, bytes], dict[str, int]]:
    """Copy an archive's binary members; returns the JSON members and all members' sizes, by names below the root."""
    described: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            listed = archive.infolist()
            if len(listed) > _MOST_MEMBERS:
                raise RefusedError(f"{len(listed):,} members")
            for member in listed:
                name = member.filename.removeprefix(_ROOT)
                if name in sizes or not member.filename.startswith(_ROOT):
                    raise RefusedError(f"member {shown(member.filename)}")
                data = _stored(archive, member, name)
                sizes[name] = len(data)
                if name in _DESCRIBING:
                    described[name] = data
                else:
                    anew.writestr(_ROOT + name, data)
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        NotImplementedError,
        zlib.error,
        UnicodeDecodeError,
    ) as error:
        raise RefusedError(f"no archive that can be read: {str(error)[:60]!a}") from None
    if missing := sorted(_NEEDED - set(sizes)):
        raise RefusedError(f"no member {missing[0]}")
    return described, sizes


def _stored(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    if (
        member.compress_type != zipfile.ZIP_STORED
        or member.flag_bits & 1
        or member.file_size != member.compress_size
    ):
        raise RefusedError(f"member {shown(name)} is compressed or encrypted")
    if not (name in _DESCRIBING or name in _FIXED or _NUMBERS.fullmatch(name)):
        raise RefusedError(f"member {shown(name)}")
    if name in _DESCRIBING and member.file_size > _MOST_JSON:
        raise RefusedError(f"member {name} of {member.file_size:,} bytes")
    data = archive.read(member)
    if name in _FIXED and not _FIXED[name].fullmatch(data):
        what = "sample inputs, which are a pickle" if name == _SAMPLES else f"other content in {name}"
        raise RefusedError(what)
    return data
