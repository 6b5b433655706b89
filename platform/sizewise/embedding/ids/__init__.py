"""What becomes of ids: hashes, keys of a feature's own, and which ids are frequent.

hashing.FastHash(seed)                     # the default hash; the two published forms of `robe` beside it
keys.ContiguousKeys, keys.HashedKeys       # (feature, id) as one number
counts.FeatureCounts                       # how often ids occur in the training rows; `hot_ids` lists frequent ones
"""
