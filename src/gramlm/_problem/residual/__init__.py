"""The residual as a function of a flat vector."""
