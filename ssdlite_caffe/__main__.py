"""`python -m ssdlite_caffe`: the command `ssdlite-caffe`."""

from ssdlite_caffe.cli import main

if __name__ == "__main__":
    main()
