"""Preconditioners for conjugate gradients on the Levenberg–Marquardt system."""
