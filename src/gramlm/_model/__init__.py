"""The linear model at a point: J, M, K and their products."""
