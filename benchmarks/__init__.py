"""Side-by-side benchmarks of gramlm and its peers; `python -m benchmarks` runs them."""
