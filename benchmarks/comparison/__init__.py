"""How models are compared: the same data, size, steps, schedule and evaluation for all."""
