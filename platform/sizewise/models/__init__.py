"""The models around the embeddings."""
