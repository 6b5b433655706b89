"""The study file: what a study asks for, typed and checked before anything starts.

A study file is YAML (see `studies/`). `load` reads one, `resolve` settles what depends on the data
(a memory budget written as a compression, such as `100x`), and every error names the file, the line,
the field and the fix:

    spec = resolve(load(Path("studies/quickstart.yaml"), {"trials": 4}), manifest)

Wherever a type here says `Searchable`, a study file may give one value, a range
(`{low: 1, high: 4}`, with `log: true` for a logarithmic one) or a list (`{choices: [sgd, adagrad]}`).
"""

from sizewise.config.fields import Choices, Range, SizeRange
from sizewise.config.reading import edited, from_text, load, to_text
from sizewise.config.resolving import resolve, with_defaults
from sizewise.config.sections.outcomes import Limit, PruningSpec
from sizewise.config.study_file import StudySpec

__all__ = [
    "Choices",
    "Limit",
    "PruningSpec",
    "Range",
    "SizeRange",
    "StudySpec",
    "edited",
    "from_text",
    "load",
    "resolve",
    "to_text",
    "with_defaults",
]
