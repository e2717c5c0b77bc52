"""Damping rules: which λ to try next, given how the last trials went."""
