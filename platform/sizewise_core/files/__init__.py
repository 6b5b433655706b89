"""Files of this machine: atomic, sealed, and those of other people."""
