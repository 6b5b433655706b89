"""Raw logs: which files there are, in which formats, and their columns.

    files.sources.resolve(["logs/day_*.gz"])   # the files that names and patterns stand for
    row_readers.open_rows(file, layout, ...)   # one file's rows, block by block, in any format
    layout.Layout                              # the columns: Criteo's, or those of a schema file

`files` finds and opens them, `parsing` turns text into rows, `values` its fields into numbers; `tables` has the formats
that are not text; `explain` says what is wrong with a row.
"""
