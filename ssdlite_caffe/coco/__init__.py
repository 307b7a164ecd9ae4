"""Class names and class ids: label maps, and remapping a model to another set of classes."""
