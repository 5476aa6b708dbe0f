"""Live: one source to the screen now, through the best generator that is in time."""
