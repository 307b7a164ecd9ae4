"""`python3 -m check`, in an unpacked bundle; `ssdlite-caffe caffe check` runs the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .run import check


def main() -> int:
    """Check the Caffe of the bundle that this file lies in; 0 where all that could be checked holds."""
    bundle = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(prog="python3 -m check", description=main.__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path(), help="folder for gpu-check.json and gpu-check.md")
    parser.add_argument("--gpu", type=int, default=0, help="number of the GPU")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="time in which it ends; what does not fit is left out"
    )
    options = parser.parse_args()
    verdict = check(bundle, options.out, gpu=options.gpu, minutes=options.minutes, say=print)
    print(verdict)
    return 0 if verdict.startswith("OK") else 1


if __name__ == "__main__":
    sys.exit(main())
