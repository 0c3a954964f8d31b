"""The main job on real input: an audit of the Python environment it runs in."""
