"""The commands `caffe build`, `bundle`, `check`, `clean`, `doctor`, `sources` and `which`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssdlite_caffe.commands.app import add, group, print_result, prints_result
from ssdlite_caffe.commands.options import Force, Json
from ssdlite_caffe.errors import BuildError
from ssdlite_caffe.terminal import duration_text, is_quiet, note, shows_progress, size_text, steps_bar

if TYPE_CHECKING:
    from ssdlite_caffe.caffe.compile import Step
    from ssdlite_caffe.caffe.doctor import Diagnosis

app = group("Build the Caffe that runs and trains our nets.")

_TARGET, _BUILD = "Target", "Build"

Cuda = Annotated[bool, typer.Option("--cuda/--cpu", help="Build for GPU and CPU, or for the CPU only.")]
Cudnn = Annotated[bool, typer.Option("--cudnn/--no-cudnn", help="Use cuDNN in a GPU build.")]
Pycaffe = Annotated[bool, typer.Option(help="Build Caffe's Python module, for the Python that runs this command.")]
Prefix = Annotated[
    Path | None,
    typer.Option(help="Folder of the built Caffe; by default SSDLITE_CAFFE_PREFIX, or a folder in the user's cache."),
]


def build(
    prefix: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the built Caffe; by default SSDLITE_CAFFE_PREFIX, or a folder in the user's cache.",
            rich_help_panel=_BUILD,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="Sources of a Caffe SSD fork, in place of the download.", rich_help_panel=_BUILD),
    ] = None,
    cuda: Annotated[
        bool, typer.Option("--cuda/--cpu", help="Build for GPU and CPU, or for the CPU only.", rich_help_panel=_TARGET)
    ] = False,
    cudnn: Annotated[
        bool, typer.Option("--cudnn/--no-cudnn", help="Use cuDNN in a GPU build.", rich_help_panel=_TARGET)
    ] = True,
    native: Annotated[
        bool,
        typer.Option(help="Optimise for this processor; the build may not run on others.", rich_help_panel=_TARGET),
    ] = True,
    portable: Annotated[
        bool,
        typer.Option(
            "--portable",
            help="For other machines: any processor since 2013, and few libraries.",
            rich_help_panel=_TARGET,
        ),
    ] = False,
    pycaffe: Annotated[
        bool,
        typer.Option(
            help="Build Caffe's Python module, for the Python that runs this command.", rich_help_panel=_TARGET
        ),
    ] = True,
    jobs: Annotated[
        int,
        typer.Option(
            "-j",
            "--jobs",
            min=0,
            help="Compiler processes; 0: as many as processors and memory allow.",
            rich_help_panel=_BUILD,
        ),
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Delete an earlier build and build again.", rich_help_panel=_BUILD)
    ] = False,
    as_json: Json = False,
) -> None:
    """Build Caffe with our layers, which takes about 6 minutes on 2 cores; does nothing if it is built already."""
    from ssdlite_caffe.caffe.build import BuildOptions
    from ssdlite_caffe.caffe.build import build as run

    options = BuildOptions(prefix, source, cuda, cudnn, native, portable, pycaffe, jobs, force)
    with _progress() as report:
        result = run(options, report)
    if as_json:
        print(json.dumps(result, indent=2))
    elif result["built"]:
        print(f"Caffe is in {result['prefix']}, the log of its build in {result['log']}")
    else:
        print(f"Caffe is in {result['prefix']} already")


def doctor(cuda: Cuda = False, cudnn: Cudnn = True, pycaffe: Pycaffe = True, as_json: Json = False) -> None:
    """Check what a build needs, and say how to install what is missing; exit status 1 if anything is."""
    from ssdlite_caffe.caffe.doctor import diagnose

    diagnosis = diagnose(cuda=cuda, cudnn=cudnn, pycaffe=pycaffe)
    if as_json:
        print(json.dumps(diagnosis.to_dict(), indent=2))
    else:
        _print_diagnosis(diagnosis)
    if not diagnosis.ok:
        raise typer.Exit(1)


def bundle(
    out: Annotated[Path, typer.Option("-o", "--out", help="Archive to write: .tar.xz or .tar.gz.")],
    prefix: Prefix = None,
    check: Annotated[
        bool, typer.Option("--check", help="With what `caffe check` runs: nets, data and shapes to time.")
    ] = False,
    model: Annotated[
        list[Path] | None,
        typer.Option("--model", help="With --check: converted folder whose net is run there; may be given again."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Pack the built Caffe with the libraries that it loads, to run on another machine of the same system."""
    import tempfile

    from ssdlite_caffe.caffe.bundle import bundle as run
    from ssdlite_caffe.caffe.prefix import caffe_prefix
    from ssdlite_caffe.files import refuse_existing

    if model and not check:
        raise typer.BadParameter("--model gives a net to check; add --check")
    built = caffe_prefix(prefix)
    refuse_existing(out, force=force)
    with tempfile.TemporaryDirectory(prefix="ssdlite-caffe.") as folder:
        more = None
        if check:
            from ssdlite_caffe.training.gpu_bundle import write_check

            more = write_check(model or (), Path(folder), note)
        packed = run(built, out, more=more, force=force, progress=note)
    report = {
        "bundle": str(packed.path),
        "bytes": packed.size,
        "libraries": list(packed.libraries),
        "needed": list(packed.needed),
    }
    needed = f"; the other machine needs {', '.join(packed.needed)}" if packed.needed else ""
    print_result(report, as_json, f"{packed.path}: {size_text(packed.size)}, {len(packed.libraries)} libraries{needed}")


def check(
    bundle: Annotated[Path, typer.Argument(help="Folder that a bundle with --check was unpacked to.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for gpu-check.json and gpu-check.md.")] = Path(),
    gpu: Annotated[int, typer.Option(min=0, help="Number of the GPU.")] = 0,
    minutes: Annotated[float, typer.Option(min=0.1, max=600, help="Time in which it ends.")] = 8.0,
) -> None:
    """Check a built Caffe on this machine's GPU: layer tests, outputs, training, speed; status 1 if anything fails."""
    from ssdlite_caffe.caffe.check.run import check as run

    if not (bundle / "depthwise.json").is_file():
        raise BuildError(f"{bundle} is not an unpacked bundle with --check: it has no depthwise.json")
    verdict = run(bundle, out, gpu=gpu, minutes=minutes, say=print)
    print(verdict)
    if not verdict.startswith("OK"):
        raise typer.Exit(1)


@prints_result
def which(prefix: Prefix = None) -> None:
    """Print the folder of the built Caffe; exit status 1 if there is none."""
    from ssdlite_caffe.caffe.prefix import caffe_prefix

    print(caffe_prefix(prefix))


@prints_result
def sources() -> None:
    """Print the folder of the Caffe fork's sources, which are downloaded if they are not there."""
    from ssdlite_caffe.caffe.prefix import cache_folder
    from ssdlite_caffe.caffe.sources import downloaded_sources

    print(downloaded_sources(cache_folder(), note))


def clean(
    installed: Annotated[bool, typer.Option("--installed", help="Delete the built Caffe too.")] = False,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Delete what builds left in the user's cache: object files, logs and downloaded sources."""
    from ssdlite_caffe.caffe.clean import clean as run

    if prefix is not None and not installed:
        raise typer.BadParameter("--prefix names a built Caffe; add --installed to delete it")
    cleaned = run(installed=installed, prefix=prefix)
    if as_json:
        print(json.dumps({"deleted": [str(path) for path in cleaned.paths], "bytes": cleaned.size}, indent=2))
        return
    for path in cleaned.paths:
        print(f"deleted {path}")
    print(f"{size_text(cleaned.size)} freed" if cleaned.paths else "there is nothing to delete")


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    for finding in diagnosis.findings:
        print(f"{'ok     ' if finding.ok else 'MISSING'}  {finding.name}: {finding.found or finding.missing}")
    print(f"run: {diagnosis.remedy}" if not diagnosis.ok else "nothing is missing; run: ssdlite-caffe caffe build")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Step], None]]:
    """A bar with the remaining time on a terminal; elsewhere a line for each step and each tenth of the compilation."""
    if not shows_progress():
        yield _lines()
        return
    with steps_bar() as update:
        yield lambda step: update(step.what, step.done, step.total)


def _lines() -> Callable[[Step], None]:
    said = ""
    started: float | None = None

    def say(step: Step) -> None:
        nonlocal said, started
        if step.total and started is None:
            started = time.monotonic()
        text = f"compiled {10 * (10 * step.done // step.total)}%" if step.total else step.what
        if text != said and not is_quiet():
            said = text
            spent = 0.0 if started is None else time.monotonic() - started
            left = spent * (step.total - step.done) / step.done if step.done else 0.0
            print(f"caffe: {text}{f', {duration_text(left)} left' if left >= 1 else ''}", file=sys.stderr, flush=True)

    return say


add(app, "build", build)
add(app, "bundle", bundle)
add(app, "check", check)
add(app, "clean", clean)
add(app, "doctor", doctor)
add(app, "sources", sources)
add(app, "which", which)
