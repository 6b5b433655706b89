"""Trials on Ray: the only folder that knows Ray Tune and Ray Train."""
