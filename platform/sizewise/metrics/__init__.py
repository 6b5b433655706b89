"""Scores of a model, and their errors."""
