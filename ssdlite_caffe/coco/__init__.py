"""Class names and class rows: label maps, and moving a model's classes to another set of them."""
