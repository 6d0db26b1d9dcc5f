"""One call that trains one agent; populations are trained in ``evolution``."""
