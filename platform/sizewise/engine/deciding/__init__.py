"""What is decided while a study runs. No Ray here."""
