"""Embedding methods, one file each: a subclass of `base.Embedding` and its options. `robe` is the one to read first."""
