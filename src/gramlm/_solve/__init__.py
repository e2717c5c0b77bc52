"""A whole solve."""
