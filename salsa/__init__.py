"""Training: everything up to a trained policy, and what all stages share. `eval` measures what is trained here.

Each room is a package with a docstring of its own. docs/architecture.md has the map.
"""
