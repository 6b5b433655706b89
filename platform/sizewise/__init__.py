"""Sizewise: how small can a recommendation model be, and what does each size cost?"""

__version__ = "0.3.0"
