"""SSDLite detectors from TensorFlow to Caffe, exactly: generate nets, dump, load, convert and verify weights."""

__version__ = "0.1.0"
