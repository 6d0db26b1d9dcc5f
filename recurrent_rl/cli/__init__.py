"""The command line: ``python -m recurrent_rl``."""
