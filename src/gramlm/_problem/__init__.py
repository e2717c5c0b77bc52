"""What is minimised: a residual with its weights, its loss, and the bounds of its parameters."""
