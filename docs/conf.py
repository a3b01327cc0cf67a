"""Sphinx builds the site from these pages: make docs."""

project = "salsa"
extensions = ["myst_parser", "sphinx_copybutton"]
html_theme = "furo"
html_title = "salsa"
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
