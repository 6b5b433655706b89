"""The files of raw logs: which there are, what they are by their first bytes, and their bytes, unpacked.

sources.resolve(["logs/day_*.gz"])         # the files that names and patterns stand for
formats.foreign(start)                     # what to do about one that is no raw log
reader.Reader(raw)                         # blocks of complete lines of a text
"""
