"""The programs that take Caffe files, started for real: each with Python packages of its own, against OpenCV."""
