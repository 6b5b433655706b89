"""Folders on this machine or in an object store."""
