"""The Caffe that `ssdlite-caffe caffe build` builds: its sources, its build, its prefix, its log and its process."""
