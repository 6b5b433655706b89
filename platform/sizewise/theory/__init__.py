"""What can be said without training: memory bounds, and what workers send each other."""
