"""Ray clusters: which one is meant, one of one's own, and what is used of Ray beside its public interface."""
