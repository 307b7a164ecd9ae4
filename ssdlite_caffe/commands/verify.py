"""The command `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.options import (
    MODEL_HELP,
    SOURCE,
    Folder,
    Force,
    Json,
    PipelineConfig,
    Runtime,
    is_given,
    long_names,
)
from ssdlite_caffe.terminal import status
from ssdlite_caffe.tools.tolerances import BOX

_RESULT, _DEVICE, _PROOF = "Result", "A board, or another program", "Proof"
_LIMIT = 8
"""Most images, unless --limit is given."""
_OF_A_RUNTIME = (
    "images", "limit", "runtime", "pipeline_config", "tolerance", "quick", "html", "all_layers", "record", "force",
)  # fmt: skip
_MODES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "check": (("runtime",), ("check",)),
    "first_departure": (("images", "pipeline_config", "tolerance"), ("first_departure",)),
    "dump": (
        ("images", "pipeline_config", "html", "all_layers", "force"),
        ("dump", "output", "annotations", "annotated_images", "label_map"),
    ),
}
"""Of what verify does but comparing with a runtime: the options that go with it, and those that ask for it."""


def verify(
    context: typer.Context,
    model: Annotated[
        list[Path],
        # A list may be empty though an argument follows it.
        typer.Argument(default_factory=list, metavar="MODEL", show_default=False,
                       help=f"{MODEL_HELP} Required, except with --check."),
    ],
    folder: Folder,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images", help="Image or folder; may be repeated.", show_default="drawn ones", rich_help_panel=SOURCE
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most images to compare.", rich_help_panel=SOURCE)] = _LIMIT,
    runtime: Runtime = "opencv",
    pipeline_config: PipelineConfig = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="In float32 alone: largest difference of boxes and scores that passes.",
            show_default=f"with --quick, {BOX:g}",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare in float32 alone, with fixed bounds, and not in float64.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write an HTML page with verdict, table and images.", rich_help_panel=_RESULT),
    ] = None,
    all_layers: Annotated[
        bool, typer.Option("--all-layers", help="Print every layer, not only the worst of each block.",
                           rich_help_panel=_RESULT)
    ] = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Write the result, and hashes of all files, into report.json of FOLDER, in place of an earlier one "
            "with the same runtime.",
            rich_help_panel=_PROOF,
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare nothing: print what --record wrote, and whether the files are still the same. Takes FOLDER "
            "alone, or MODEL FOLDER to check the model's hash too.",
            rich_help_panel=_PROOF,
        ),
    ] = False,
    dump: Annotated[
        Path | None,
        typer.Option(
            help="Compare what a device gave in place of a runtime: folder of .npy, .bin or .txt files, or .npz.",
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            help="What an output of the device is, as in BLOB:file=out0.bin,dtype=int8,scale=0.05,zero=-3,layout=nhwc; "
            "may be repeated. @FILE has one on each line.",
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Average precision of the device and of TensorFlow on the images of --dump: folder in VOC's layout, "
            "LMDB, or COCO's instances_*.json.",
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    annotated_images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images of COCO's annotations.", show_default="the folder of --images",
                     rich_help_panel=_DEVICE),
    ] = None,
    label_map: Annotated[
        str | None,
        typer.Option("-l", "--label-map", help="coco, voc, or a label map file, for --annotations.",
                     show_default="the folder's own", rich_help_panel=_DEVICE),
    ] = None,
    first_departure: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Find the first layer that a program computes otherwise, with a command that runs a net: "
            "'python run.py {net} {weights} {input} {output}'.",
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run TensorFlow and the converted net on the same inputs and compare them layer by layer."""
    from ssdlite_caffe.commands.swapped import CONVERTED, MODEL, is_model_alone, refuse_swapped

    if len(model) > 1:
        raise typer.BadParameter(f"one path too many: {folder}; give MODEL FOLDER")
    mode = _mode(context)
    if not model and mode != "check":
        if is_model_alone(folder):
            raise typer.BadParameter(f"FOLDER is missing, into which {folder} was converted; give MODEL FOLDER")
        raise typer.BadParameter(f"MODEL is missing, which {folder} was converted from; --check alone can do without")
    if model:
        refuse_swapped("verify {first} {second}", model[0], folder, (frozenset({MODEL}), frozenset({CONVERTED})))
    if mode == "check":
        from ssdlite_caffe.commands.verify_proof import verify_check

        chosen = runtime if is_given(context, "runtime") else None
        verify_check(folder, model[0] if model else None, chosen, as_json=as_json)
    elif mode == "first_departure":
        from ssdlite_caffe.commands.verify_device import verify_departure

        assert first_departure is not None
        verify_departure(model[0], folder, first_departure, images or [], pipeline_config, tolerance, as_json)
    elif mode == "dump":
        from ssdlite_caffe.commands.device_accuracy import Annotations
        from ssdlite_caffe.commands.verify_device import verify_dump

        verify_dump(
            model[0], folder, dump, output or [], images or [], pipeline_config,
            Annotations(annotations, annotated_images, label_map), html, force=force, all_layers=all_layers,
            as_json=as_json,
        )  # fmt: skip
    else:
        from ssdlite_caffe import api
        from ssdlite_caffe.commands.verify_proof import print_compared, recorded_before

        earlier = recorded_before(folder, runtime) if record else None
        with status() as progress:
            report = api.verify(
                model[0], folder, images or [], runtime=runtime, pipeline_config=pipeline_config, tolerance=tolerance,
                quick=quick, limit=limit, html=html, force=force, record=record, progress=progress,
            )  # fmt: skip
        print_compared(report, earlier, record=record, all_layers=all_layers, as_json=as_json)


def _mode(context: typer.Context) -> str:
    """What is asked for: `check`, `first_departure`, `dump`, or empty for a comparison with a runtime.

    Raises:
        typer.BadParameter: an option does not go with it.
    """
    given = [name for name in context.params if is_given(context, name)]
    mode = next((mode for mode, (_, signs) in _MODES.items() if any(name in given for name in signs)), "")
    allowed, signs = _MODES[mode] if mode else (_OF_A_RUNTIME, ())
    what = ", ".join(next(long_names(context, name)) for name in signs[:1]) if mode else "a comparison with a runtime"
    for name in given:
        if name not in (*allowed, *signs, "model", "folder", "as_json"):
            raise typer.BadParameter(f"{next(long_names(context, name))} does not apply to {what}")
    return mode
