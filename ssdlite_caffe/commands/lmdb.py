"""The commands `lmdb voc`, `lmdb coco` and `lmdb check`."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ssdlite_caffe.commands.app import add, group, print_result
from ssdlite_caffe.commands.options import Force, Json
from ssdlite_caffe.terminal import bar, note

if TYPE_CHECKING:
    from ssdlite_caffe.coco.label_map import LabelMap
    from ssdlite_caffe.data.annotations import Dataset
    from ssdlite_caffe.data.encoded import ImageEncoding

app = group("Write the LMDB that Caffe trains on, and check one.")

_IMAGES, _RUN = "Images", "Run"
_SHOWN = 50

Out = Annotated[Path, typer.Option("-o", "--out", help="LMDB to write, a folder.")]


def _size(text: str | None) -> str | None:
    if text is not None:
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
        if not found or "0" in (found[1].lstrip("0") or "0", found[2].lstrip("0") or "0"):
            raise typer.BadParameter(f"the size must be HEIGHTxWIDTH, such as 300x400, got {text!r}")
    return text


@dataclass(frozen=True)
class _Options:
    """Options of both commands that write an LMDB; `_writes` adds an option for each field."""

    label_map: Annotated[
        str | None,
        typer.Option("-l", "--label-map", help="coco, voc, or a file.", show_default="the names in the annotations"),
    ] = None
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", callback=_size, help="Resize all images to this height and width.", rich_help_panel=_IMAGES
        ),
    ] = None
    min_dim: Annotated[
        int, typer.Option(min=0, help="Least length of the shorter side; 0: no limit.", rich_help_panel=_IMAGES)
    ] = 0
    max_dim: Annotated[
        int, typer.Option(min=0, help="Greatest length of the longer side; 0: no limit.", rich_help_panel=_IMAGES)
    ] = 0
    encode: Annotated[
        Literal["jpg", "png"] | None,
        typer.Option(help="Store all images in this format.", show_default="unchanged", rich_help_panel=_IMAGES),
    ] = None
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="JPEG quality of re-encoded images.", rich_help_panel=_IMAGES)
    ] = 95
    no_decode: Annotated[
        bool,
        typer.Option(
            "--no-decode",
            help="Do not check whether images that are stored unchanged can be decoded.",
            rich_help_panel=_IMAGES,
        ),
    ] = False
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Store in random order.", rich_help_panel=_RUN)] = False
    seed: Annotated[int, typer.Option(help="Seed of that order.", rich_help_panel=_RUN)] = 0
    jobs: Annotated[
        int,
        typer.Option(
            "-j", "--jobs", min=0, max=256, help="Reader threads; 0: one for each processor.", rich_help_panel=_RUN
        ),
    ] = 0
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail if anything is wrong with the data.", rich_help_panel=_RUN),
    ] = False
    force: Force = False
    as_json: Json = False


def _writes(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter `options` by one parameter for each of its fields, which typer needs."""
    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(_Options, eval_str=True).parameters

    @functools.wraps(command)
    def called(**given: Any) -> None:
        options = _Options(**{name: given.pop(name) for name in shared})
        command(**given, options=options)

    taken = [*(own[name] for name in own if name != "options"), *shared.values()]
    keywords = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in taken]
    called.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in keywords}
    return called


def voc(
    roots: Annotated[
        list[Path], typer.Argument(metavar="ROOT...", help="Folders with JPEGImages, Annotations, ImageSets/Main.")
    ],
    out: Out,
    split: Annotated[
        str | None, typer.Option(help="List in ImageSets/Main.", show_default="trainval")
    ] = None,
    list_file: Annotated[
        Path | None,
        typer.Option("--list", help="File with lines `IMAGE ANNOTATION`, paths below ROOT, in place of a split."),
    ] = None,
    *,
    options: _Options,
) -> None:  # fmt: skip
    """Write data in Pascal VOC's layout."""
    from ssdlite_caffe.data.voc import open_voc

    if list_file is not None and (split is not None or len(roots) > 1):
        raise typer.BadParameter("with --list, give one ROOT and no --split")
    _write(lambda labels: open_voc(roots, split or "trainval", list_file=list_file, label_map=labels), out, options)


def coco(
    images: Annotated[Path, typer.Argument(help="Folder of the images.")],
    annotations: Annotated[Path, typer.Argument(help="instances_*.json.")],
    out: Out,
    *,
    options: _Options,
) -> None:
    """Write data in COCO's format (instances)."""
    from ssdlite_caffe.commands.swapped import DATA, IMAGES, refuse_swapped
    from ssdlite_caffe.data.coco import open_coco

    refuse_swapped(
        "lmdb coco {first} {second}" + f" -o {out}", images, annotations, (frozenset({IMAGES}), frozenset({DATA}))
    )
    _write(lambda labels: open_coco(images, annotations, label_map=labels), out, options)


def check(
    folder: Annotated[Path, typer.Argument(help="LMDB.")],
    label_map: Annotated[
        str | None,
        typer.Option("-l", "--label-map", help="coco, voc, or a file.", show_default="labelmap.prototxt in the LMDB"),
    ] = None,
    draw: Annotated[int, typer.Option(min=0, help="Number of images to draw with their boxes, into -o.")] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the drawn images.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if anything is wrong.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Count the records and objects of an LMDB, and list what is wrong with it."""
    from ssdlite_caffe.data.lmdb_check import check_lmdb

    if bool(draw) != (out is not None):
        raise typer.BadParameter("give both --draw and -o, or neither")
    with bar("reading") as progress:
        report = check_lmdb(folder, label_map=label_map, draw=draw, out=out, force=force, progress=progress)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _print_check(report)
    if strict and report["problems"]:
        raise typer.Exit(1)


def _shape(options: _Options) -> ImageEncoding:
    from ssdlite_caffe.data.encoded import ImageEncoding

    resize, min_dim, max_dim = options.resize, options.min_dim, options.max_dim
    if resize is not None and (min_dim or max_dim):
        raise typer.BadParameter("give either --resize or --min-dim and --max-dim")
    if max_dim and min_dim > max_dim:
        raise typer.BadParameter(f"--min-dim must not be above --max-dim {max_dim}, got {min_dim}")
    height, width = map(int, resize.split("x")) if resize else (0, 0)
    size = (height, width) if resize else None
    return ImageEncoding(size, min_dim, max_dim, options.encode, options.quality, decode=not options.no_decode)


def _write(open_dataset: Callable[[LabelMap | None], Dataset], out: Path, options: _Options) -> None:
    from ssdlite_caffe.coco.label_map import load_label_map
    from ssdlite_caffe.data.annotations import Problem, count_text, reasons
    from ssdlite_caffe.data.lmdb_write import Order, write_lmdb
    from ssdlite_caffe.files import refuse_existing

    shape = _shape(options)
    order = Order(options.shuffle, options.seed, options.jobs)
    refuse_existing(out, force=options.force)  # before the annotations are read
    dataset = open_dataset(load_label_map(options.label_map) if options.label_map else None)
    with bar("writing") as progress:
        summary = write_lmdb(
            dataset, out, shape, order, strict=options.strict, force=options.force, progress=progress
        )  # fmt: skip
    problems = [Problem(**item) for item in summary["problems"]]
    if not options.as_json:
        _note_problems(list(map(str, problems)))
        if len(problems) > _SHOWN:
            _note_problems(reasons(problems))
        if options.label_map is None:
            _note_empty_classes(summary)
    counted = count_text(problems)
    print_result(
        summary,
        options.as_json,
        f"{summary['images']} of {summary['images_listed']} images with {summary['objects']} objects "
        f"({_classes(summary)}) are in {out}" + (f"; {counted}" if counted else ""),
    )


def _classes(report: dict[str, Any]) -> str:
    named = [f"{item['name']} {item['objects']}" for item in report["classes"] if item["objects"]]
    more = f", and {len(named) - 8} more classes" if len(named) > 8 else ""
    return (", ".join(named[:8]) or "no class") + more


def _note_empty_classes(summary: dict[str, Any]) -> None:
    """Name the classes that only the annotations' own list of names makes classes."""
    empty = [repr(item["name"]) for item in summary["classes"] if not item["objects"]]
    if empty:
        more = f" and {len(empty) - 8} more" if len(empty) > 8 else ""
        note(f"classes without an object: {', '.join(empty[:8])}{more}")


def _note_problems(lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        note(line)
    if len(lines) > _SHOWN:
        note(f"... and {len(lines) - _SHOWN} more; --json lists all")


def _print_check(report: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ssdlite_caffe.terminal import table_console

    _note_problems([f"{item['record']}: {item['what']}" for item in report["problems"]])
    table = Table()
    for title in ("label", "class", "objects", "images"):
        table.add_column(title, justify="left" if title == "class" else "right")
    for item in report["classes"]:
        name = "?" if item["name"] is None else item["name"]
        table.add_row(str(item["label"]), Text(name), str(item["objects"]), str(item["images"]))
    console = table_console()
    console.print(table)
    (low, high), (narrow, wide) = report["heights"], report["widths"]
    print(
        f"{report['records']} records, {report['objects']} objects ({report['objects_difficult']} difficult), "
        f"{report['images_empty']} images without any; {low} to {high} pixels high, {narrow} to {wide} wide; "
        f"{len(report['problems'])} problem{'s' * (len(report['problems']) != 1)}"
    )


add(app, "voc", _writes(voc))
add(app, "coco", _writes(coco))
add(app, "check", check)
