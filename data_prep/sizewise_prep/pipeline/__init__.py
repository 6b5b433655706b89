"""From raw files to shards, step by step, on local processes or on Ray."""
