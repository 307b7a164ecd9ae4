"""What a program that takes Caffe files is given: nets in its dialect, side files in its words, calibration images."""
