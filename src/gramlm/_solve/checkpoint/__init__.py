"""Solves that outlive their process."""
