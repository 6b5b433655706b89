"""Single values of raw logs: tokens as 32 bits, times, splits, and which numbers a file cannot hold exactly."""
