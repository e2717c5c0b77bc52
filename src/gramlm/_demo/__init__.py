"""The main job of `python -m gramlm`."""
