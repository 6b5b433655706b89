r"""The names of fields in JSON lines, compiled: which line is the first with a name that is not expected.

    names = Names(["click", "user"])
    names.unknown(b'{"click": 1}\n{"click": 0, "usr": 7}\n')       # (1, "usr")

The text is searched byte by byte; what looks like an unknown name is decided by Python's own reader of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from sizewise_core.machine.compiled import compiled


class Names:
    """The names that fields may have.

    Args:
        names: of the columns.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        written = {
            form: None
            for name in names
            for form in (name, json.dumps(name)[1:-1], json.dumps(name, ensure_ascii=False)[1:-1])
        }
        forms = [form.encode("utf-8", "surrogatepass") for form in written]
        self._forms = np.frombuffer(b"".join(forms), np.uint8)
        self._ends = np.cumsum([len(form) for form in forms], dtype=np.int64)

    def unknown(self, text: bytes) -> tuple[int, str] | None:
        """The first line, from 0, with a field of another name, and that name; None without any.

        Args:
            text: lines, each ended by a newline.
        """
        data, at, line = np.frombuffer(text, np.uint8), 0, 0
        while True:
            at, lines = map(int, _unknown(data, at, self._forms, self._ends))
            if at < 0:
                return None
            line += lines
            start, stop = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
            found = self._in_line(text[start:stop])
            if found is not None:
                return line, found
            at, line = stop + 1, line + 1

    def _in_line(self, line: bytes) -> str | None:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None  # a bad row
        return (
            next((name for name in value if name not in self._names), None)
            if isinstance(value, dict)
            else None
        )


@compiled
def _unknown(text: Any, at: int, forms: Any, ends: Any) -> Any:
    """Where the first name ends that is none of `forms` (-1: nowhere), and how many lines end before it."""
    newline, quote, backslash = 10, 34, 92
    depth = lines = last = 0
    awaited = False  # whether the next text is a name
    while at < len(text):
        byte = text[at]
        if byte == newline:
            depth, awaited = 0, False
            lines += 1
        elif byte == quote:
            at += 1
            start = at
            while at < len(text) and text[at] != quote and text[at] != newline:
                at += 2 if text[at] == backslash and at + 1 < len(text) and text[at + 1] != newline else 1
            if at >= len(text) or text[at] == newline:
                continue
            if depth == 1 and awaited:
                awaited, known = False, False
                for step in range(len(ends)):  # names mostly come in the same order
                    form = (last + step) % len(ends)
                    begin = ends[form - 1] if form else 0
                    if ends[form] - begin != at - start:
                        continue
                    known = True
                    for i in range(at - start):
                        if forms[begin + i] != text[start + i]:
                            known = False
                            break
                    if known:
                        last = form + 1
                        break
                if not known:
                    return at, lines
        elif byte == 123 or byte == 91:
            depth += 1
            awaited = depth == 1 and byte == 123
        elif byte == 125 or byte == 93:
            depth -= 1
        elif byte == 44 and depth == 1:
            awaited = True
        at += 1
    return -1, lines
