"""Agents that users hold, and how they learn."""
