"""Fused lookups and updates: hash, gather and scatter in one pass, once a block instead of once an element.

``cpu`` is compiled by numba and used by default wherever it is valid; ``gpu`` is written in Triton.  Each equals
the plain PyTorch path of the methods, which stays for every other case (``embedding.fused = False`` chooses it).
"""
