"""Phase 2: token heads, on frozen contexts or through time."""
