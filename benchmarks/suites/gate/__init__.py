"""`python -m benchmarks --gate`: whether gramlm got worse since `baseline.json` was written."""
