"""Losses that keep contexts diverse; each is a plugin of the entry-point group."""
