"""How contexts are computed over a text: streams in lock-step, one token at a time, whole texts."""
