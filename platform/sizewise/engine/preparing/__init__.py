"""What is checked and made before the first trial starts."""
