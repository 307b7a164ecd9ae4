"""`python -m ssdlite_caffe.coco.coco2voc OUT -o OUT2`: short for `ssdlite-caffe remap --map coco2voc OUT -o OUT2`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `ssdlite-caffe remap` with this program's arguments."""
    from ssdlite_caffe import cli

    sys.argv[:] = ["ssdlite-caffe", "remap", "--map", "coco2voc", *sys.argv[1:]]
    cli.main()


if __name__ == "__main__":
    main()
