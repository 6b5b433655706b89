"""The distinct values of token columns: how often each occurs in the training rows, and their contiguous ids.

counts.training_counts(folder)             # exact, in bounded memory
vocabulary.renumber(...)                   # raw tokens as contiguous ids
"""
