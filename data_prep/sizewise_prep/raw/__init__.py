"""Raw logs: which files there are, in which formats, and their columns.

    sources.resolve(["logs/day_*.gz"])         # the files that names and patterns stand for
    reader.Reader(file)                        # one file's text, block by block
    layout.Layout                              # the columns: Criteo's, or those of a schema file

`parsing` turns the text into rows; `explain` says what is wrong with a line.
"""
