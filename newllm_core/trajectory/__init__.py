"""How contexts are computed over a text: sequential, parallel, and the naive reference."""
