"""Shards as batches of rows."""
