"""Running detectors in OpenCV, Caffe, TensorFlow and TensorFlow Lite, and the reference decoder."""
