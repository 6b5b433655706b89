"""What figures share: axes, colours, hover texts, references."""
