"""Make the image files of this folder anew.

`make images` makes all of them; some are made from the repository's root with

    python docs/images/make.py [shapes] [verify] [train]

`verify` needs Chromium, `train` a built Caffe and some minutes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser import find_browser, open_browser  # noqa: E402 - found through the path above

PAGE_WIDTH = 1260
"""Window of the screenshot in pixels: all columns of verify's table fit."""


def run(work: Path, command: str) -> None:
    """Run `ssdlite-caffe COMMAND` in the working folder; a failure ends the script."""
    print(f"$ ssdlite-caffe {command}", flush=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    program = [sys.executable, "-m", "ssdlite_caffe.cli", *shlex.split(command)]
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run(program, cwd=work, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own


def shapes(work: Path) -> None:
    """shapes.png: what the example model detects in the example scene."""
    run(work, "detect example examples/shapes.png -o drawn")
    shutil.copy(work / "drawn" / "shapes.png", HERE / "shapes.png")


def verify(work: Path) -> None:
    """verify.png: the page of `verify --html`, from top to bottom."""
    run(work, "verify examples/frozen_inference_graph.pb example --images examples/shapes.png --html verify.html")
    program = find_browser()
    if program is None:
        sys.exit("verify.png needs Chromium, and none is installed; on Debian: apt-get install chromium")
    with open_browser(program) as page:
        page.open(work / "verify.html", PAGE_WIDTH, 800)
        page.resize(PAGE_WIDTH, int(page.evaluate("document.documentElement.scrollHeight")))
        page.screenshot(HERE / "verify.png")
        if page.errors:
            sys.exit(f"verify.html: {page.errors[0]}")
    with Image.open(HERE / "verify.png") as image:  # 256 colours make the file a third as large
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(HERE / "verify.png", optimize=True)


def train(work: Path) -> None:
    """train-loss.png and train-precision-recall.png: a short training on drawn scenes in the built Caffe."""
    run(work, "convert examples/frozen_inference_graph.pb -o nameless")  # else its class predictors would be kept
    (work / "labels.txt").write_text("triangle\ncircle\nsquare\n")
    run(work, "shapes -o scenes --count 240 --seed 1")
    run(work, "shapes -o fresh --count 60 --seed 1000 --split test")
    run(work, "lmdb voc scenes -l labels.txt -o trainval_lmdb")
    run(work, "lmdb voc fresh --split test -l labels.txt -o test_lmdb")
    run(
        work,
        "kit labels.txt --train trainval_lmdb --test test_lmdb --from nameless --finetune --freeze-bn --zoom 1 "
        "--batch-size 8 --iterations 300 --seed 1 -o kit",
    )
    run(work, "train kit")
    run(work, "test kit")
    shutil.copy(work / "kit" / "loss.png", HERE / "train-loss.png")
    shutil.copy(work / "kit" / "precision_recall.png", HERE / "train-precision-recall.png")


PARTS = {part.__name__: part for part in (shapes, verify, train)}


def main() -> None:
    """Make the parts named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Make the image files of docs/images anew.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; without one, all")
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = sorted(set(chosen) - PARTS.keys())
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="ssdlite-caffe.") as scratch:
        work = Path(scratch)
        shutil.copytree(ROOT / "examples", work / "examples")  # so that the page shows short paths
        run(work, "convert examples/frozen_inference_graph.pb --label-map examples/labelmap.pbtxt -o example")
        for name in chosen:
            PARTS[name](work)


if __name__ == "__main__":
    main()
