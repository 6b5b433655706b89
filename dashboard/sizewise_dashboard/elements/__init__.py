"""What pages are made of: figures, tables, picked trials, notes."""
