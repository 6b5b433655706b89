"""A schema file for a log that nobody has described, from a look at its first rows.

    proposal = propose(["train.csv"])          # what each column seems to be, and what is unsure
    proposal.text                              # the schema file, with comments

`samples` reads the rows, `text_form` finds separator and header of text, `kinds` says what a column is.
"""

from __future__ import annotations

from sizewise_prep.raw.proposing.schema_file import Proposal, propose

__all__ = ["Proposal", "propose"]
