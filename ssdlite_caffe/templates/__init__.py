"""Jinja2 templates of prototxts, scripts and the verify page."""
