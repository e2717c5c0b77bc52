"""Damped linear systems."""
