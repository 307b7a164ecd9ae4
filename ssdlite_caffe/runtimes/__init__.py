"""What runs a detector: OpenCV, Caffe, TensorFlow, TensorFlow Lite, and the reference decoder."""
