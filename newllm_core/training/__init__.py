"""Phase 1 and Phase 2."""
