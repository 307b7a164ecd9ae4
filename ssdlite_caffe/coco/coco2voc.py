"""`python -m ssdlite_caffe.coco.coco2voc FOLDER -o OUT`: the command `ssdlite-caffe remap --map coco2voc`."""

import sys

from ssdlite_caffe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["remap", "--map", "coco2voc"]
    main()
