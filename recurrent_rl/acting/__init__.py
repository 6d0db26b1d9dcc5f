"""Policies that act in environments: one rule of memory, for collecting, testing and using."""
