"""Columns of a study's tables that are computed from others: its front, its intervals, means over seeds."""
