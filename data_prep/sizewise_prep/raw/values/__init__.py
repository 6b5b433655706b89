"""Values of raw logs: typed columns, tokens as 32 bits, times, splits, and numbers that a file cannot hold exactly."""
