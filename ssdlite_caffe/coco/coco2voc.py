"""`python -m ssdlite_caffe.coco.coco2voc OUT -o OUT2`: the command `ssdlite-caffe remap` with `--map coco2voc`.

The one module here that knows the command; it does so only when it is run.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `ssdlite-caffe remap` with this program's arguments."""
    from ssdlite_caffe import cli

    sys.argv[:] = ["ssdlite-caffe", "remap", "--map", "coco2voc", *sys.argv[1:]]
    cli.main()


if __name__ == "__main__":
    main()
