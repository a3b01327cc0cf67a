"""Measuring: from trained policies to tables, figures and the report. `salsa` trains them and knows nothing of this.

Each room is a package with a docstring of its own. docs/architecture.md has the map.
"""
