"""The recurrence and what reads it: cells, embeddings, heads, counts. Knows no training."""
