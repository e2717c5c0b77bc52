"""Algebra that knows no J, only a product."""
