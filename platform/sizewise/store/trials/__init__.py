"""What a study keeps of its trials: records, evaluations, curves."""
