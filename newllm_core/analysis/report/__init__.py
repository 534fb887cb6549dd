"""Reports people look at, made from the JSON of `analyze` and `compare` without torch."""
