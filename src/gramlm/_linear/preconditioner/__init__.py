"""Preconditioners of the Gram operator."""
