"""Study files read and written: YAML in, a `StudySpec` or an error with file, line and field out."""

import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from sizewise.config.fields import Range, did_you_mean
from sizewise.config.sections.grouped import place_of
from sizewise.config.sections.train import GROUPS
from sizewise.config.study_file import StudySpec
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import LAST_LINE, last_line_holds
from sizewise_core.files.yaml_files import YamlError, line_of, load_yaml, parse_yaml
from sizewise_core.stores.storage import Place

MOST_LINES = 3  # that are said of a study file, a field a line


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> StudySpec:
    """Read a study file and lay `overrides` (dotted keys, as `--set` gives them) over it.

    Raises:
        InputError: missing file, not YAML, unknown key, wrong type, impossible value; with file, line and field.
    """
    document: Any = load_yaml(path)
    if not isinstance(document, Mapping):
        raise InputError(
            f"{path}: a study file is a mapping that starts with `name:` and `data:`; this one is not"
        )
    raw = _plain(document)
    given = raw.keys() | {dotted.partition(".")[0] for dotted in overrides or {}}
    if not given & {"name", "data"} and not raw.keys() <= StudySpec.model_fields.keys():
        raise InputError(
            f"{path}: has neither `name:` nor `data:`, with which a study file begins; is it the right file?"
        )
    defaults: dict[str, Any] = StudySpec(name="any", data="any").model_dump()
    del defaults["model"]  # whose fields depend on its kind, and none of whose defaults is a range
    defaults["embedding"] = {}  # a study that names a field of it searches the others no longer
    for dotted, value in (overrides or {}).items():
        place = raw
        default: Any = defaults
        *parents, last = dotted.split(".")
        for parent in parents:
            default = default.get(parent) if isinstance(default, dict) else None
            # What the file leaves to its default keeps the rest of that default.
            if not isinstance(
                place.setdefault(parent, dict(default) if isinstance(default, dict) else {}), dict
            ):
                raise InputError(f"--set {dotted}: {parent} holds a value, not fields")
            place = place[parent]
        place[last] = value
    return _validated(raw, path, document, overrides or {})


def from_text(text: bytes, path: Place) -> StudySpec:
    """The spec that `to_text` wrote to `path`.

    Raises:
        InputError: the text is not what was written, unless whoever changed it has removed its last line.
    """
    if not last_line_holds(text):
        raise InputError(
            f"{path}: is not what was written: it was edited, or its disk is at fault. Bring the file back with "
            f"`cp {path.with_suffix('.before')} {path}`; or, where the change is meant, remove the last line, the "
            "checksum (trials that have run stay as they are)"
        )
    try:
        document: Any = parse_yaml(text)
        if not isinstance(document, Mapping):
            raise YamlError("is no mapping")
    except YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise InputError(
            f"{path}{line}: not valid YAML: bring the file back with `cp {path.with_suffix('.before')} {path}`"
        ) from None
    return _validated(_plain(document), path, document, {})


def edited(text: bytes) -> bool:
    """Whether whoever changed what `to_text` wrote has said so, by removing its last line."""
    return LAST_LINE not in text


def to_text(spec: StudySpec) -> bytes:
    """The whole spec as YAML, every default written out, and in the last line its checksum."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # keep the order of the study file's fields
    yaml.dump(spec.model_dump(), stream)
    content = stream.getvalue().encode()
    return content + LAST_LINE + _checksum(content) + b"\n"


def _checksum(content: bytes) -> bytes:
    return b"%08x" % zlib.crc32(content)


def _plain(node: Any) -> Any:
    """ruamel's node types (they remember lines and comments) as plain Python."""
    if isinstance(node, Mapping):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_plain(v) for v in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _validated(raw: Mapping[str, Any], path: Place, document: Any, overrides: Mapping[str, Any]) -> StudySpec:
    try:
        return StudySpec.model_validate(raw)
    except ValidationError as error:
        # One line a field: where several types were tried, the last one says it best.
        lines = dict(_explain(e, raw, path, document, overrides) for e in error.errors())
        more = len(lines) - MOST_LINES
        rest = [f"and {more} more such problem{'' if more == 1 else 's'}"] if more > 0 else []
        raise InputError("\n".join([*list(lines.values())[:MOST_LINES], *rest])) from None


def _explain(
    error: Any, raw: Any, path: Place, document: Any, overrides: Mapping[str, Any]
) -> tuple[str, str]:
    """One pydantic error as its field and `file:line: field: what is wrong and the fix`."""
    kind = error["type"]
    # pydantic's location also names the form it tried (value, range, ...), which is no key of the file.
    steps: list[Any] = []
    for step in _as_written(error["loc"]):
        if (isinstance(raw, Mapping) and step in raw) or (isinstance(raw, list) and isinstance(step, int)):
            steps.append(step)
            raw = raw[step]
    if kind == "missing":
        steps.append(error["loc"][-1])
    field = ".".join(str(step) for step in steps)
    message = error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = _fields_of(steps[:-1])
        near = did_you_mean(str(steps[-1]), known)
        message = f"unknown key{near}" if near else f"unknown key; known keys: {', '.join(known)}"
    elif kind == "missing":
        message = "is missing: add it"
    elif kind != "value_error":
        message = f"{message[0].lower()}{message[1:]}, not {_written(error['input'])}"
    override = next((k for k in overrides if field == k or field.startswith(k + ".")), None)
    where = f"--set {override}" if override else f"{path}{line_of(document, steps)}"
    return field, f"{where}: {field}: {message}" if field and field != override else f"{where}: {message}"


def _as_written(location: tuple[Any, ...]) -> list[Any]:
    """A location in the records as one in the study file, which groups some settings."""
    steps = list(location)
    if steps[:1] == ["train"] and len(steps) > 1:
        steps[1:2] = place_of(str(steps[1]), GROUPS)
    return steps


def _written(value: Any) -> str:
    """A value as it is written, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _fields_of(steps: list[Any]) -> list[str]:
    """Names of the fields that may stand under `steps`."""
    model: Any = StudySpec
    for step in steps:
        field = model.model_fields.get(step)
        inner = field.annotation if field else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else Range
    return list(model.model_fields)
