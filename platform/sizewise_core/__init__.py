"""What every package stands on; it imports none of ours.

`files` (atomic, sealed, YAML), `stores` (folders here or in an object store), `machine` (its limits, compiled code),
`clusters` (Ray's), and errors, units, names and the registry of methods and models.
"""
