"""Columns as they lie in memory, texts among them, to arrays of numbers and tokens, compiled: the usual ones only.

    found = split(text, b",", 40, quotes=True).columns  # the fields of quoted text, without a string being made
    tokens_of("hex", found[3])                         # (rows,) uint32; None: leave the column to `parsing.converter`

What is given here equals what `parsing.converter` gives, bit by bit. A column with a value that is wrong or unusual is
given back unread, and the converter says what is wrong with which row.
"""
