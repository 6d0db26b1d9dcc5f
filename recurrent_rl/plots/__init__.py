"""Pictures and films of what was trained; nothing here needs a display."""
