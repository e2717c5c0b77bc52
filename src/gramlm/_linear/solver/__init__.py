"""Linear solvers for the Levenberg–Marquardt system."""
