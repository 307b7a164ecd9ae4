"""Caffe's files: read, written, and checked without Caffe."""
