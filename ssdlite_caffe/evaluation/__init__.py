"""Evaluating detectors: average precision, COCO's metrics, reports."""
