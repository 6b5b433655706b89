"""How good a search was: the hypervolume it reached, against other studies, and which settings mattered."""
