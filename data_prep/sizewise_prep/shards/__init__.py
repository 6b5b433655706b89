"""Prepared data: shards, their manifest, and the vocabularies of contiguous ids."""
