"""Teachers, whose log-odds students train against."""
