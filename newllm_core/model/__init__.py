"""The recurrence and what reads it: layer, block, embeddings, heads, decoder. Knows no training."""
