"""Raw logs: which files there are, their columns, and their lines as rows."""
