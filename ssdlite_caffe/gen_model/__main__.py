"""`python -m ssdlite_caffe.gen_model`: the command `ssdlite-caffe gen`."""

import sys

from ssdlite_caffe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["gen"]
    main()
