"""Training with Caffe's solver: the training folder, runs, log, plot, snapshots."""
