"""This machine: memory, CPUs, and code that is compiled for it."""
