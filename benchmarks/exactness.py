"""How exact is each converted model, and how good are its detections, in every runtime?

`convert`, `verify` and `evaluate` on each model at hand. The results go into benchmarks/results/exactness.json, and
from there as tables into README.md and docs/exactness.md (`make exactness`). What cannot be measured again, because a
model, its data or a runtime is not at hand, is named, and its earlier numbers stay, with their date.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import common
import exactness_results as store
import exactness_tables as pages
from exactness_measure import INEXACT, RUNTIMES, Model, at_hand, scratch_folder, with_run
from exactness_models import Found, find

from ssdlite_caffe import __version__
from ssdlite_caffe.caffe.prefix import find_prefix
from ssdlite_caffe.errors import SsdliteError

PARTS = ("verify", "inexact", "precision")
"""What is measured of a model."""


def say(text: str) -> None:
    """Progress and problems go to stderr."""
    print(text, file=sys.stderr, flush=True)


def this_run() -> dict[str, Any]:
    """The date, the machine, and the versions of what is run."""
    found = common.machine("numpy", "tensorflow", "opencv", "pycocotools")
    versions = {name: found[name] for name in ("python", "numpy", "tensorflow", "opencv", "pycocotools")}
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        **versions,
        "ssdlite_caffe": __version__,
        "caffe": "built by `ssdlite-caffe caffe build`" if find_prefix() else None,
    }


def _processor() -> str:
    """The processor's name, where the system tells it; else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({platform.machine()})" if names else platform.processor() or platform.machine()


class Session:
    """One run of this script: what it writes, and what went wrong."""

    def __init__(self, results: dict[str, Any], path: Path, options: argparse.Namespace) -> None:
        self.results, self.path, self.options = results, path, options
        self.run = store.run_name(results, this_run())
        self.wrong: list[str] = []
        self.data: Path | None = options.data
        self.runtimes = [name for name in RUNTIMES if name in (options.runtime or RUNTIMES)]

    def write(self) -> None:
        """Write the results and, if they are the project's own, the pages."""
        store.write(self.path, self.results)
        if self.path.resolve() == store.DEFAULT:
            for page in pages.write_pages(store.read(self.path)):
                say(f"written: {page.relative_to(common.ROOT)}")

    def model(self, found: Found) -> None:
        """Measure a model, part by part; what fails is said and keeps its earlier numbers."""
        known = self.results["models"].get(found.name)
        with scratch_folder() as scratch:
            try:
                model = Model(found, Path(scratch), self.data, self.options.images)
            except SsdliteError as error:
                if known is None:
                    say(f"{found.name} is not converted, so not measured: {error}")
                else:
                    self.failed(found.name, error)
                return
            entry, changed = store.model_of(self.results, found.name, found.known.title, model.sha256)
            if changed:
                say(f"{found.name} is another file than before: its earlier numbers are dropped")
            parts = self.options.part or PARTS
            for runtime in self.runtimes if "verify" in parts else ():
                self.part(f"verify in {runtime}", entry, partial(self.differences, model, entry, runtime))
            for dialect in INEXACT if found.known.inexact and "inexact" in parts else ():
                self.part(f"verify with {dialect}", entry, partial(self.inexact, model, entry, dialect))
            if found.known.classes and "precision" in parts:
                self.part("average precision", entry, partial(self.precision, model, entry))

    def part(self, what: str, entry: Mapping[str, Any], measure: Callable[[], None]) -> None:
        """Run one measurement, and write what it found."""
        started = time.perf_counter()
        say(f"  {what}")
        try:
            measure()
        except SsdliteError as error:
            self.failed(f"{entry['title']}, {what}", error)
        else:
            say(f"  {what}: {time.perf_counter() - started:.0f} s")
            self.write()

    def failed(self, what: str, error: SsdliteError) -> None:
        """Say what could not be measured; the script ends with status 1."""
        self.wrong.append(f"{what}: {error}; its earlier numbers stay")
        say(self.wrong[-1])

    def differences(self, model: Model, entry: dict[str, Any], runtime: Any) -> None:
        record, equal = model.differences(runtime)
        entry["verify"][runtime] = with_run(record, self.run)
        if not equal:
            self.wrong.append(f"{entry['title']} in {runtime}: {record['verdict']}")

    def inexact(self, model: Model, entry: dict[str, Any], dialect: str) -> None:
        entry["inexact"][dialect] = with_run(model.inexact(dialect), self.run)

    def precision(self, model: Model, entry: dict[str, Any]) -> None:
        for runtime, record in model.precision(["tensorflow", *self.runtimes], self.images_done):
            entry["precision"][runtime] = with_run(record, self.run)

    def images_done(self, done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            say(f"    {done} of {total} images")


def _parser() -> argparse.ArgumentParser:
    parser = common.parser(__doc__)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER", help="one more; repeat it")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="measure this one; repeat it")
    parser.add_argument("--resume", action="store_true", help="measure the models that an interrupted run left")
    parser.add_argument("--render", action="store_true", help="measure nothing; put the results into the pages")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this part; repeat it; left out: all")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help="repeat it; left out: all that are there")
    parser.add_argument("--data", type=Path, default=common.default_images(), help="the bccd data set, VOC layout")
    parser.add_argument("-n", "--images", type=int, default=8, help="for each model, to compare on")
    parser.add_argument("--results", type=Path, default=store.DEFAULT, help="JSON; the pages show the default one only")
    return parser


def main() -> None:
    options = _parser().parse_args()
    if options.images < 1:
        sys.exit(f"--images must be at least 1, got {options.images}")
    if options.data is not None and not (options.data / "ImageSets" / "Main" / "test.txt").is_file():
        sys.exit(f"{options.data} has no ImageSets/Main/test.txt; give the folder of bccd with --data")
    results = store.read(options.results)
    if options.render:
        pages.write_pages(results)
        return
    found = find(options.models, options.model)
    wanted, missing = store.plan(results, found, only=options.only, resume=options.resume)
    session = Session(results, options.results, options)
    for name in missing:
        _say_missing(name, results, "its folder was not found")
    missing += [name for name in wanted if not at_hand(found[name], options.data)]
    for name in (name for name in wanted if name in missing):
        _say_missing(name, results, "the bccd images were not found")
    wanted = [name for name in wanted if name not in missing]
    if "caffe" in session.runtimes and find_prefix() is None:
        say("missing: no Caffe is built (make caffe); the earlier numbers of the built Caffe stay")
        session.runtimes.remove("caffe")
    results["left"] = [name for name in store.ordered({*wanted, *results["left"]}) if name not in missing]
    store.write(options.results, results)
    for number, name in enumerate(wanted, 1):
        say(f"[{number}/{len(wanted)}] {name}")
        session.model(found[name])
        results["left"].remove(name)
        session.write()
    if options.json:
        print(options.results.read_text("utf-8"))
    else:
        for name, text in pages.tables(store.read(options.results)).items():
            print(f"{name}\n\n{text}\n")
    for line in session.wrong:
        say(f"wrong: {line}")
    sys.exit(1 if session.wrong else 0)


def _say_missing(name: str, results: Mapping[str, Any], why: str) -> None:
    known = results["models"].get(name)
    kept = f"its numbers of {store.dates(known)} stay" if known is not None else "it has no earlier numbers"
    say(f"missing: {name}: {why}; {kept}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted; what was measured is written, and --resume measures the rest")
        sys.exit(130)
