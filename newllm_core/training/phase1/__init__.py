"""Phase 1: the update is trained so that contexts settle and stay diverse."""
