"""What is read off a graph: convolutions, activations, default boxes, scores, NMS and settings."""
