"""Places that show the figures of runs while they are made."""
