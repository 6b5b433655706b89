"""What a trial keeps on disk to go on from."""
