"""Uncertainties of parameters."""
