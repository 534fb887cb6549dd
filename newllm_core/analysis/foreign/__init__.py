"""Recurrent networks that others made, opened for `examine`: one file per kind of file."""
