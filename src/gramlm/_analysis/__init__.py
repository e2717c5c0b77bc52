"""What is asked after a solve, or of one point."""
