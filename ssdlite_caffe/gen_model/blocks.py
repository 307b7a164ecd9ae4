"""The builder that all families use: a chain of nodes, each of which reads the blob of the one before it."""

from __future__ import annotations

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import Activation, ArchSpec
from ssdlite_caffe.gen_model.families import ConvRow, Family, InvertedResidual, Separable
from ssdlite_caffe.gen_model.netdesc import (
    AddDesc,
    ConvDesc,
    GateDesc,
    GlobalPoolDesc,
    NodeDesc,
    Role,
    Section,
)
from ssdlite_caffe.gen_model.padding import explicit_padding, output_size, same_padding
from ssdlite_caffe.gen_model.rounding import make_divisible


class Chain:
    """A net's body under construction.

    Attributes:
        blob, channels, size: the blob that the next node reads, its channels and its (height, width).
        sections: the sections finished so far.
    """

    def __init__(self, arch: ArchSpec, family: Family) -> None:
        self.arch = arch
        self.family = family
        self.blob = "data"
        self.channels = 3
        self.size = arch.input_size
        self.sections: list[Section] = []
        self._nodes: list[NodeDesc] = []
        self._scope = family.tf_scope if arch.classifier else f"FeatureExtractor/{family.tf_scope}"

    def scope(self, tail: str) -> str:
        """The variable scope `tail` of the backbone, with what TensorFlow puts before it."""
        return f"{self._scope}/{tail}"

    def depth(self, channels: int) -> int:
        """Channels of a body layer after the width multiplier."""
        return self.family.depth(channels * self.arch.width_multiplier, self.arch.min_depth)

    def end_section(self, title: str) -> None:
        """Make a section of the nodes since the last call; `title` is its heading in the prototxt."""
        self.sections.append(Section(title, tuple(self._nodes)))
        self._nodes = []

    def add(self, node: NodeDesc, channels: int, size: tuple[int, int]) -> None:
        """Append a node; the next one reads its top."""
        self._nodes.append(node)
        self.blob, self.channels, self.size = node.top, channels, size

    def conv(
        self,
        name: str,
        tf: str,
        role: Role,
        *,
        out: int | None = None,
        kernel: int = 1,
        stride: int = 1,
        activation: Activation,
        batch_norm: bool = True,
    ) -> None:
        """Append a convolution; `out` None makes it depthwise."""
        desc = describe_conv(
            self.arch,
            name,
            self.scope(tf),
            role,
            bottom=self.blob,
            in_channels=self.channels,
            in_size=self.size,
            out=out,
            kernel=kernel,
            stride=stride,
            activation=activation,
            batch_norm=batch_norm,
            explicit=self.arch.explicit_padding,
        )
        self.add(desc, desc.num_output, desc.out_size)

    def conv_row(self, row: ConvRow, role: Role, *, narrow: bool = True, widen: bool = True) -> None:
        """Append a table's convolution.

        Without `narrow`, a width multiplier below 1 is not applied to it; without `widen`, one above 1 is not.
        """
        width = self.arch.width_multiplier
        applies = narrow if width < 1 else widen
        out = self.depth(row.out) if applies else self.family.depth(row.out, self.arch.min_depth)
        self.conv(
            row.caffe,
            row.tf,
            role,
            out=out,
            kernel=row.kernel,
            stride=row.stride,
            activation=row.activation,
            batch_norm=row.batch_norm,
        )

    def separable(self, row: Separable, number: int) -> None:
        """Append block `number` (1...) of MobileNetV1."""
        caffe, tf = f"conv{number}", f"Conv2d_{number}"
        self.conv(
            f"{caffe}/{self.family.depthwise_caffe}",
            f"{tf}_depthwise",
            "depthwise",
            kernel=3,
            stride=row.stride,
            activation="relu6",
        )
        self.conv(caffe, f"{tf}_pointwise", "pointwise", out=self.depth(row.out), activation="relu6")
        self.end_section(f"{caffe}: depthwise, pointwise" + _stride(row.stride))

    def inverted_residual(self, row: InvertedResidual, number: int) -> None:
        """Append block `number` (0...) of MobileNetV2 or V3. Source: `expanded_conv` in slim's conv_blocks.py."""
        suffix = f"_{number}" if number else ""
        caffe, tf = f"conv{suffix}", f"expanded_conv{suffix}"
        block_in, in_channels = self.blob, self.channels
        inner = make_divisible(in_channels * row.expansion, row.divisible_by)
        if row.inner:
            inner = self.depth(row.inner)
        if inner > in_channels:
            self.conv(f"{caffe}/expand", f"{tf}/expand", "expand", out=inner, activation=row.activation)
        self.conv(
            f"{caffe}/depthwise",
            f"{tf}/depthwise",
            "depthwise",
            kernel=row.kernel,
            stride=row.stride,
            activation=row.activation,
        )
        if row.squeeze_excite:
            self._squeeze_excite(f"{caffe}/squeeze_excite", f"{tf}/squeeze_excite")
        self.conv(f"{caffe}/project", f"{tf}/project", "project", out=self.depth(row.out), activation="none")
        residual = row.stride == 1 and self.residual_channels(row) == in_channels
        if residual:
            bottoms = (block_in, self.blob)
            self.add(AddDesc(f"{caffe}/sum", bottoms, caffe, self.channels, self.size), self.channels, self.size)
        parts = [f"expand to {inner}"] if inner > in_channels else []
        parts += [f"depthwise {row.kernel}x{row.kernel}"]
        parts += ["squeeze-excite"] if row.squeeze_excite else []
        parts += ["project"] + (["sum"] if residual else [])
        self.end_section(f"{caffe}: {', '.join(parts)}" + _stride(row.stride))

    def residual_channels(self, row: InvertedResidual) -> int:
        """The channels that a block's input must have for a residual sum; see `arch.Residuals`.

        Source: `expanded_conv` in slim's conv_blocks.py; `_inverted_res_block` in keras.applications.mobilenet_v2. The
        OD API (models/keras_models/mobilenet_v2.py) applies `min_depth` to the latter's convolutions, but not to its
        comparison of channels.
        """
        if self.arch.residuals == "tf1":
            return self.channels
        return make_divisible(int(row.out * self.arch.width_multiplier))

    def _squeeze_excite(self, caffe: str, tf: str) -> None:
        """Source: `squeeze_excite` in slim's conv_blocks.py, with squeeze_factor 4 as mobilenet_v3.py has it."""
        bottom, channels, size = self.blob, self.channels, self.size
        pool = f"{caffe}/pool"
        self.add(GlobalPoolDesc(pool, bottom, pool, channels, size), channels, (1, 1))
        squeezed = make_divisible(channels / 4)
        self.conv(f"{caffe}/Conv", f"{tf}/Conv", "se_reduce", out=squeezed, activation="relu", batch_norm=False)
        self.conv(
            f"{caffe}/Conv_1", f"{tf}/Conv_1", "se_expand", out=channels, activation="hard_sigmoid", batch_norm=False
        )
        self.add(GateDesc(caffe, bottom, self.blob, caffe, channels, size), channels, size)


def _stride(stride: int) -> str:
    return f", stride {stride}" if stride > 1 else ""


def describe_conv(
    arch: ArchSpec,
    name: str,
    tf_scope: str,
    role: Role,
    *,
    bottom: str,
    in_channels: int,
    in_size: tuple[int, int],
    out: int | None,
    kernel: int,
    stride: int = 1,
    activation: Activation,
    batch_norm: bool = True,
    explicit: bool = False,
) -> ConvDesc:
    """One convolution with its padding and output size computed.

    Without output channels (`out` None) it is depthwise. `explicit`: pad as TensorFlow's use_explicit_padding does and
    not as SAME. `arch` is needed for the error message alone.

    Raises:
        ArchError: the input map is too small for the kernel.
    """
    window, steps = (kernel, kernel), (stride, stride)
    padding = explicit_padding(window) if explicit else same_padding(in_size, window, steps)
    out_size = output_size(in_size, window, steps, padding)
    if min(out_size) < 1:
        raise ArchError(
            f"input size {arch.input_size[0]}x{arch.input_size[1]} is too small: {name} would read a map of "
            f"{in_size[0]}x{in_size[1]}"
        )
    return ConvDesc(
        name=name,
        tf_scope=tf_scope,
        role=role,
        bottom=bottom,
        in_channels=in_channels,
        num_output=in_channels if out is None else out,
        kernel=window,
        stride=steps,
        group=in_channels if out is None else 1,
        padding=padding,
        batch_norm=batch_norm,
        activation=activation,
        in_size=in_size,
        out_size=out_size,
    )
