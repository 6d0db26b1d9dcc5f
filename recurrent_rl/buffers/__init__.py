"""What collection writes and learning reads."""
