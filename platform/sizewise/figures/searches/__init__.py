"""Settings and objectives, and how a search went."""
