"""The Caffe that `ssdlite-caffe caffe build` builds: its sources, build, prefix and processes."""
