"""The process that drives a study: its lock, its signals, its log, and how it ends."""
