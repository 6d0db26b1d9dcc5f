"""Learning from demonstrations: what somebody did who knows what to do, and imitating it."""
