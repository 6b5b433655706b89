"""Who drives a study, and what its trials use."""
