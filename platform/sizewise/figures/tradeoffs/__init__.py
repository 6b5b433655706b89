"""Accuracy against size and iterations."""
