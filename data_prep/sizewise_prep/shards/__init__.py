"""Prepared data: shards, their manifest, and the vocabularies of contiguous ids.

manifest.Manifest.load(folder)             # what a folder of shards holds
files.read_shard(file, shape)              # one shard's rows, mapped into memory
cache.local_shards(data)                   # a copy on this machine of shards in an object store
"""
