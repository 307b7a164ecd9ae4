"""Training with Caffe's solver: the training folder, its runs, logs, metrics and snapshots."""
