"""Which layer another program computes wrongly: nets cut at blobs, the user's command that runs them, and a search."""

from __future__ import annotations

import math
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.errors import DeviceError
from ssdlite_caffe.files import write_text
from ssdlite_caffe.prototxt.cut import cut_net
from ssdlite_caffe.prototxt.text import format_message, read_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.reference_windows import Layer
from ssdlite_caffe.runtimes.resize import caffe_blob
from ssdlite_caffe.tools.convert import Progress
from ssdlite_caffe.tools.device_check import first_image
from ssdlite_caffe.tools.device_outputs import read_outputs
from ssdlite_caffe.tools.device_reference import HEADS, SCORES, Array, DeviceReference
from ssdlite_caffe.tools.same_model import check_same
from ssdlite_caffe.tools.source import open_model

TOLERANCE = 1e-3
"""Largest difference of a blob that is no departure, as a share of its largest value: float32 leaves some 1e-5."""
_NEEDED = ("{net}", "{output}")
_PLACES = ("{net}", "{weights}", "{input}", "{output}", "{blob}")
_KEPT_BYTES = 4096


@dataclass(frozen=True)
class Probe:
    """A blob, or a layer's output, of the other program compared with TensorFlow's.

    Attributes:
        blob: its name.
        layer: of a layer before its blob's last one, its name; else "".
        shape: of the blob.
        largest: difference of all values; Inf where the program has NaN or Inf.
        share: `largest` divided by the largest absolute value of the reference.
        at: index of the largest difference.
        device, reference: the values there; None for NaN and Inf.
        departs: whether `share` is above the tolerance.
    """

    blob: str
    layer: str
    shape: tuple[int, ...]
    largest: float
    share: float
    at: tuple[int, ...]
    device: float | None
    reference: float
    departs: bool


@dataclass(frozen=True)
class Departure:
    """The first layer whose result departs, though that of the layers that it reads does not.

    Attributes:
        layer, type: name and type.
        probe: its output.
        inputs: what it reads, each with its share; the net's input has 0.
    """

    layer: str
    type: str
    probe: Probe
    inputs: dict[str, float]


@dataclass(frozen=True)
class DepartureReport:
    """Result of a search.

    Attributes:
        command: as given.
        image: name of the image.
        tolerance: share of a blob's largest value.
        departure: None if no output of the net departs.
        probes: in the order in which the command was run.
    """

    command: str
    image: str
    tolerance: float
    departure: Departure | None
    probes: tuple[Probe, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which has no Inf: it is null."""
        data = asdict(self)
        found = [data["departure"]["probe"]] if data["departure"] else []
        for probe in (*data["probes"], *found):
            probe.update({key: None for key in ("largest", "share") if not math.isfinite(probe[key])})
        return data


def parents_of(layers: Sequence[Layer], given: str) -> dict[str, set[str]]:
    """For each blob, those that its layers read, in place ones among them; the net's input is left out.

    Args:
        layers: in the net's order.
        given: name of the input.
    """
    parents: dict[str, set[str]] = {}
    for layer in layers:
        for top in layer.top:
            parents.setdefault(top, set()).update(name for name in layer.bottom if name not in (top, given))
    return parents


def first_departing(
    parents: Mapping[str, set[str]], outputs: Sequence[str], departs: Callable[[str], bool]
) -> str | None:
    """The first blob that departs: it does, and all that it is computed from do not. None if no output departs.

    What is computed from a blob that departs is taken to depart too, so each answer halves what is left, as far as the
    net's branches let it. In the end the blob's own inputs are asked; should one of them depart after all, the search
    goes on there.

    Args:
        parents: of each blob, as from `parents_of`.
        outputs: to begin with, in this order.
        departs: asks the device; it is asked once for each blob.
    """
    asked: dict[str, bool] = {}

    def ask(name: str) -> bool:
        if name not in asked:
            asked[name] = departs(name)
        return asked[name]

    above = _ancestors(parents)
    current = next((name for name in outputs if ask(name)), None)
    while current is not None:
        left = {name for name in above[current] if name not in asked} - {current}
        while left:
            name = max(sorted(left), key=lambda one: min(len(above[one] & left), len(left - above[one]) + 1))
            if ask(name):
                current, left = name, (left & above[name]) - {name}
            else:
                left -= above[name]
        worse = next((name for name in sorted(parents[current]) if ask(name)), None)
        if worse is None:
            return current
        current = worse
    return None


def _ancestors(parents: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Each blob with all that it is computed from; `parents` is in the net's order."""
    found: dict[str, set[str]] = {}
    for name, direct in parents.items():
        found[name] = {name}.union(*(found.get(one, set()) for one in direct))
    return found


def find_departure(
    source: Path,
    folder: ModelFolder,
    command: str,
    *,
    images: Sequence[Path] = (),
    tolerance: float | None = None,
    reading: ReadOptions | None = None,
    progress: Progress = lambda _: None,
) -> DepartureReport:
    """Find the first layer whose result departs from TensorFlow's, by running a command on nets that are cut.

    Args:
        source: the model that `folder` was converted from.
        folder: the converted model.
        command: words with places: {net} a prototxt, {weights} the caffemodel, {input} a .npy of the net's input (1, 3,
            H, W), BGR, {output} where to write the values of the net's output, with any suffix that `read_outputs`
            reads; {blob} the name of that output. It is started without a shell.
        images: the first is used; empty: the first in the folder's `expected`.
        tolerance: largest difference as a share of a blob's largest value; None: TOLERANCE.
        reading: how to read the model; None: as on converting.
        progress: called with what is being done.

    Raises:
        SsdliteError: the command is not valid, cannot be started, fails or writes nothing; or the model cannot be run.
    """
    words = _words(command)
    name, image = first_image(folder, images)
    tolerance = TOLERANCE if tolerance is None else tolerance
    progress("starting what runs the model")
    with open_model(source, reading or folder.reading) as opened:
        check_same(opened.model, folder)
        with opened.run() as running:
            reference = DeviceReference(opened, folder, running)
            values = reference.image(image)
    with tempfile.TemporaryDirectory(prefix="ssdlite-caffe.") as temporary:
        place = Path(temporary)
        np.save(place / "input.npy", caffe_blob(values.fed).astype("<f4"), allow_pickle=False)
        search = _Search(folder, reference.deploy, values.blobs, words, place, tolerance, progress)
        departure = search.run()
    return DepartureReport(command, name, tolerance, departure, tuple(search.probes))


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise DeviceError(f"--first-departure: {error} in {command!r}") from error
    missing = [place for place in _NEEDED if not any(place in word for word in words)]
    if missing:
        raise DeviceError(
            f"--first-departure: the command must have {' and '.join(missing)}; its places are {', '.join(_PLACES)}"
        )
    return words


class _Search:
    """Runs the command on cut nets, and compares."""

    def __init__(
        self, folder: ModelFolder, net: ReferenceNet, wanted: Mapping[str, Array], words: Sequence[str], place: Path,
        tolerance: float, progress: Progress,
    ) -> None:  # fmt: skip
        self.probes: list[Probe] = []
        self._folder, self._net, self._wanted, self._words = folder, net, wanted, words
        self._place, self._tolerance, self._progress = place, tolerance, progress
        self._layers = [layer for layer in net.layers if layer.type != "DetectionOutput"]
        self._prototxt = read_net(folder.deploy_prototxt)

    def run(self) -> Departure | None:
        parents = parents_of(self._layers, self._net.input)
        ends = [name for layer in self._net.layers if layer.type == "DetectionOutput" for name in layer.bottom]
        outputs = [name for name in dict.fromkeys([*HEADS[:2], SCORES, *ends, HEADS[2]]) if name in parents]
        blob = first_departing(parents, outputs, lambda name: self._probe(name).departs)
        if blob is None:
            return None
        inputs = {probe.blob: probe.share for probe in self.probes if not probe.layer}
        writers = [layer for layer in self._layers if blob in layer.top]
        named = [layer.name for layer in self._layers]
        for layer, values in zip(writers[:-1], self._between(blob, writers), strict=True):
            if named.count(layer.name) == 1 and layer.top[0] == blob:
                probe = self._probe(blob, layer.name, values)
                if probe.departs:
                    return Departure(layer.name, layer.type, probe, self._shares(layer, blob, inputs))
        probe = next(one for one in self.probes if one.blob == blob and not one.layer)
        return Departure(writers[-1].name, writers[-1].type, probe, self._shares(writers[-1], blob, inputs))

    def _shares(self, layer: Layer, blob: str, known: Mapping[str, float]) -> dict[str, float]:
        """The shares of what a layer reads; of the blob that it changes in place, as it was before."""
        shares = {one.blob: one.share for one in self.probes if one.layer not in ("", layer.name)}
        return {name: (shares if name == blob else known).get(name, 0.0) for name in layer.bottom}

    def _between(self, blob: str, writers: Sequence[Layer]) -> list[Array]:
        """The reference after each of the layers that write a blob, but the last."""
        blobs, found = {**self._wanted}, []
        for layer in writers[:-1]:
            self._net.compute(layer, blobs)
            found.append(blobs[blob])
        return found

    def _probe(self, blob: str, layer: str = "", wanted: Array | None = None) -> Probe:
        self._progress(f"run {len(self.probes) + 1}: {layer or blob}")
        wanted = self._wanted[blob] if wanted is None else wanted
        got = self._device(blob, layer, wanted.shape)
        with np.errstate(invalid="ignore"):
            gap = np.abs(got - wanted)
        gap[np.isnan(gap)] = np.inf
        at = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
        largest, scale = float(gap[at]), float(np.abs(wanted).max())
        share = largest / scale if scale else (math.inf if largest else 0.0)
        device = float(got[at]) if math.isfinite(got[at]) else None
        probe = Probe(
            blob, layer, wanted.shape, largest, share, at, device, float(wanted[at]), share > self._tolerance
        )  # fmt: skip
        self.probes.append(probe)
        return probe

    def _device(self, blob: str, layer: str, shape: tuple[int, ...]) -> Array:
        """What the command gives for a blob."""
        folder = self._place / f"run{len(self.probes)}"
        net, out = folder / "net.prototxt", folder / "out"
        cut = cut_net(self._prototxt, layer or blob, at_layer=bool(layer), phase="TEST")
        write_text(net, format_message(cut.net))
        out.mkdir()
        places = {
            "{net}": net, "{weights}": self._folder.deploy_caffemodel.resolve(), "{input}": self._place / "input.npy",
            "{output}": out / "output", "{blob}": blob,
        }  # fmt: skip
        words = list(self._words)
        for place, value in places.items():
            words = [word.replace(place, str(value)) for word in words]
        _start(words, f"the net cut at {layer or blob}")
        if not any(out.iterdir()):
            raise DeviceError(f"--first-departure: {words[0]} wrote nothing to {{output}} for the net cut at {blob}")
        try:
            return read_outputs(out, {blob: shape}, [blob]).values[blob]
        except DeviceError as error:
            raise DeviceError(f"--first-departure: {error}") from error


def _start(words: Sequence[str], what: str) -> None:
    """Run a command without a shell and without input; its last line of text is kept for the error."""
    with tempfile.TemporaryFile() as log:
        try:
            done = subprocess.run(  # noqa: S603
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise DeviceError(f"--first-departure: cannot start {words[0]}: {reason}") from error
        if done.returncode:
            log.seek(max(0, log.seek(0, 2) - _KEPT_BYTES))
            lines = log.read().decode("utf-8", "replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "it prints nothing")
            raise DeviceError(
                f"--first-departure: {words[0]} ends with status {done.returncode} on {what}: {last[:300]}"
            )
