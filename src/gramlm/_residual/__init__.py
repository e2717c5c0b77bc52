"""Residuals: as the user writes them, and as functions of a flat parameter vector."""
