"""How good a detector is: average precision, COCO's metrics, reports."""
