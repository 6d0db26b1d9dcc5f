"""Environments of every kind, seen as rows."""
