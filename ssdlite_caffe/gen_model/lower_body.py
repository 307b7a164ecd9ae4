"""Nodes of a NetDesc -> Caffe layers: padding, BatchNorm and activations in the given dialect.

Layers are in place as in the public nets, but never overwrite values that a later layer or a backward pass still reads:
see `_bounded`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ssdlite_caffe.gen_model.compat import Compat
from ssdlite_caffe.gen_model.dialect import Dialect, Engine
from ssdlite_caffe.gen_model.layers import (
    BatchNorm,
    Clip,
    Concat,
    Convolution,
    Eltwise,
    Flatten,
    Gate,
    GlobalPooling,
    LayerDesc,
    Pad,
    Power,
    ReLU,
    ReLU6,
    Scale,
    Silence,
    Slice,
    Upsample,
)
from ssdlite_caffe.gen_model.moved_maps import COLUMNS, ROWS, Cuts, Moves, cuts_of
from ssdlite_caffe.gen_model.netdesc import AddDesc, ConvDesc, GateDesc, GlobalPoolDesc, NodeDesc, Padding, UpsampleDesc
from ssdlite_caffe.gen_model.padding import (
    exact_axis,
    same_padding,
    slice_axis,
    spread_axis,
    symmetric_axis,
)

_WEIGHT, _BIAS, _FROZEN = (1.0, 1.0), (2.0, 0.0), (0.0, 0.0)
_CUTS = ("{conv}/slice_{suffix}", "{conv}/{suffix}_before", "{conv}/kept_{suffix}")
_CUTS_COMPAT = ("slice", "{conv}/margin{axis}", "{conv}/tmp")
"""Names of a Slice layer, of the blob that is cut off in front, and of the rest if columns are still to be cut."""
_SUFFIXES = {ROWS: "rows", COLUMNS: "columns"}
_PREDICTOR_STD = 0.03
"""Of the model zoo's configs (box_predictor, initializer). An msra filler would make the first logits far from 0."""


@dataclass
class BodyLowerer:
    """Makes layers of nodes.

    Attributes:
        dialect: how they are written.
        epsilon: of BatchNorm layers.
        gate_scale: the squeeze-excite gate's constant.
        train: write learning rates and fillers.
        opencv: avoid what OpenCV computes wrong (see `spread_axis`).
        compat: the earlier project whose layers are written (see `compat.py`), and which do not avoid that.
        moves: of the padding dialect shift, see `moved_maps.py`.
        unread: blobs made so far that no layer reads.
    """

    dialect: Dialect
    epsilon: float
    gate_scale: float
    train: bool
    opencv: bool
    compat: Compat | None = None
    moves: Mapping[str, Moves] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def node(self, node: NodeDesc) -> list[LayerDesc]:
        """The layers of one node, in file order."""
        if isinstance(node, ConvDesc):
            return self.conv(node)
        if isinstance(node, AddDesc):
            return [Eltwise(name=node.name, bottoms=node.bottoms, tops=(node.top,), operation="SUM")]
        if isinstance(node, GlobalPoolDesc):
            return [GlobalPooling(name=node.name, bottoms=(node.bottom,), tops=(node.top,))]
        if isinstance(node, UpsampleDesc):
            return [
                Upsample(
                    name=node.name,
                    bottoms=(node.bottom,),
                    tops=(node.top,),
                    channels=node.channels,
                    learning=(_FROZEN,) if self.train else (),
                )
            ]
        return _gate(node)

    def silence(self) -> list[LayerDesc]:
        """One Silence layer for all unread blobs so far; no layer if there are none."""
        return [Silence(name="silence", bottoms=tuple(self.unread), tops=())] if self.unread else []

    def conv(self, conv: ConvDesc) -> list[LayerDesc]:
        """A convolution with its padding, BatchNorm and activation, and what `moves` has for it."""
        moves = self.moves.get(conv.name, Moves())
        copies, bottom = self._copied(conv, moves.copied)
        made = replace(conv, bottom=bottom, blob=f"{conv.name}/whole" if moves.cuts else conv.blob)
        if moves.padded:
            rows, columns = (int(axis in moves.padded) for axis in (ROWS, COLUMNS))
            made = replace(made, padding=Padding(rows, rows, columns, columns))
        activation, linear = self._activation(made)
        layers = [*copies, *self._padded(made, linear), *self._batch_norm(made, linear), *activation]
        return [*layers, *self._cut(conv, made.top, conv.top, moves.cuts)]

    def _copied(self, conv: ConvDesc, axes: Sequence[int]) -> tuple[list[LayerDesc], str]:
        """Layers that put a copy of the first row or column of a convolution's bottom in front, and the moved blob."""
        layers: list[LayerDesc] = []
        blob = conv.bottom
        for axis in axes:
            first, rest, moved = (f"{conv.name}/{part}_{_SUFFIXES[axis]}" for part in ("first", "rest", "moved"))
            layers.append(Slice(name=first, bottoms=(blob,), tops=(first, rest), axis=axis, points=(1,)))
            # A blob that no layer reads would have to be silenced, and OpenCV's Silence copies it.
            layers.append(Concat(name=moved, bottoms=(first, first, rest), tops=(moved,), axis=axis))
            blob = moved
        return layers, blob

    def _padded(self, conv: ConvDesc, top: str) -> list[LayerDesc]:
        """The convolution alone, from `conv.bottom` to `top`, with TensorFlow's padding in the dialect."""
        pad = conv.padding
        rows = (conv.in_size[0], conv.kernel[0], conv.stride[0], pad.top, pad.bottom, conv.dilation[0])
        columns = (conv.in_size[1], conv.kernel[1], conv.stride[1], pad.left, pad.right, conv.dilation[1])
        way = self.dialect.padding
        if pad.symmetric:
            return [self._convolution(conv, conv.bottom, top, conv.kernel, (pad.top, pad.left))]
        if way == "exact":
            high, wide = exact_axis(*rows), exact_axis(*columns)
            return [self._convolution(conv, conv.bottom, top, (high.kernel, wide.kernel), (high.pad, wide.pad))]
        if way == "symmetric":
            return [
                self._convolution(
                    conv, conv.bottom, top, conv.kernel, (symmetric_axis(*rows), symmetric_axis(*columns))
                )
            ]
        if way == "pad-layer":
            padded = f"{conv.name}/pad"
            return [
                Pad(
                    name=padded,
                    bottoms=(conv.bottom,),
                    tops=(padded,),
                    top=pad.top,
                    bottom=pad.bottom,
                    left=pad.left,
                    right=pad.right,
                ),
                self._convolution(conv, padded, top, conv.kernel, (0, 0)),
            ]
        if way == "tf_pad":
            assert pad == same_padding(conv.in_size, conv.kernel, conv.stride, conv.dilation)
            return [self._convolution(conv, conv.bottom, top, conv.kernel, (0, 0), tf_pad=True)]
        vertical, horizontal = slice_axis(*rows), slice_axis(*columns)
        if self.moves:
            narrow = self.moves[conv.name].narrow if conv.name in self.moves else ()
            pads = (vertical.pad - (ROWS in narrow), horizontal.pad - (COLUMNS in narrow))
            return [self._convolution(conv, conv.bottom, top, conv.kernel, pads)]
        blob = f"{conv.name}/pad"
        layer = self._convolution(conv, conv.bottom, blob, conv.kernel, (vertical.pad, horizontal.pad))
        return [layer, *self._cut(conv, blob, top, cuts_of(conv))]

    def _cut(self, conv: ConvDesc, blob: str, top: str, cuts: Cuts) -> list[LayerDesc]:
        """Slice layers from `blob` to `top` that cut off windows that TensorFlow has not, rows first."""
        layers: list[LayerDesc] = []
        for last, (axis, cut) in enumerate(cuts, start=1 - len(cuts)):
            suffix = _SUFFIXES[axis]
            names = _CUTS_COMPAT if self.compat else _CUTS
            layer, before, kept = (name.format(conv=conv.name, suffix=suffix, axis=axis - 1) for name in names)
            kept = top if last == 0 else kept
            tops, points = [kept], []
            if cut.drop_before:
                tops.insert(0, before)
                points.append(cut.drop_before)
            if cut.drop_after:
                tops.append(f"{conv.name}/{suffix}_after")
                points.append(cut.drop_before + cut.keep)
            layers.append(
                Slice(
                    name=layer,
                    bottoms=(blob,),
                    tops=tuple(tops),
                    axis=axis,
                    points=tuple(points),
                )
            )
            self.unread += [t for t in tops if t != kept]
            blob = kept
        return layers

    def _convolution(
        self,
        conv: ConvDesc,
        bottom: str,
        top: str,
        kernel: tuple[int, int],
        pad: tuple[int, int],
        *,
        tf_pad: bool = False,
    ) -> Convolution:
        bias = not conv.plain and (self._folded(conv) or (conv.bias and not self._unbiased()))
        learning = ((_WEIGHT, _BIAS) if bias else (_WEIGHT,)) if self.train else ()
        rows, columns = (
            spread_axis(size, taps, zeros, steps) if self._spread(conv) else (zeros, steps)
            for size, taps, zeros, steps in zip(conv.in_size, kernel, pad, conv.dilation, strict=True)
        )
        dilation = (rows[1], columns[1])
        gaussian = conv.role in ("box_predictor", "class_predictor") and not self.compat
        return Convolution(
            name=conv.name,
            bottoms=(bottom,),
            tops=(top,),
            learning=learning,
            layer_type=self.dialect.depthwise if conv.depthwise else "Convolution",
            num_output=conv.num_output,
            bias_term=bias,
            kernel=kernel,
            pad=(rows[0], columns[0]),
            stride=conv.stride,
            dilation=dilation,
            spread=dilation != conv.dilation,
            group=conv.group,
            engine=self._engine(dilation) if conv.depthwise else "DEFAULT",
            tf_pad=tf_pad,
            fillers=self.train,
            filler_std=_PREDICTOR_STD if gaussian else 0.0,
            shared=conv.shares if self.train and not (conv.batch_norm and self._folded(conv)) else "",
        )

    def _folded(self, conv: ConvDesc) -> bool:
        """Whether the convolution's BatchNorm, if it has one in TensorFlow, is folded into it."""
        choice = self.dialect.batch_norm
        return choice == "fold" or (choice == "fold-body" and conv.role != "head_depthwise")

    def _unbiased(self) -> bool:
        """Whether convolutions without BatchNorm in TensorFlow lack their bias, too: see `Compat.biased`."""
        return self.compat is not None and not self.compat.biased and self.dialect.batch_norm == "keep"

    def _spread(self, conv: ConvDesc) -> bool:
        """Whether OpenCV may run the layer with its depthwise kernel, and the layer can have a dilation."""
        run = self.dialect.depthwise != "DepthwiseConvolution"
        return self.opencv and not self.compat and conv.depthwise and run

    def _engine(self, dilation: tuple[int, int]) -> Engine:
        """The dialect's engine; cuDNN's has no dilation, and Caffe's default is its own engine where there is one."""
        undone = self.dialect.engine == "CUDNN" and dilation != (1, 1)
        return "DEFAULT" if undone else self.dialect.engine

    def _batch_norm(self, conv: ConvDesc, blob: str) -> list[LayerDesc]:
        if not conv.batch_norm or self._folded(conv):
            return []
        return [
            BatchNorm(
                name=f"{conv.name}/bn",
                bottoms=(blob,),
                tops=(blob,),
                learning=(_FROZEN,) * 3 if self.train else (),
                eps=self.epsilon,
                frozen=self.dialect.batch_norm == "frozen",
            ),
            Scale(
                name=f"{conv.name}/scale",
                bottoms=(blob,),
                tops=(blob,),
                learning=((1.0, 0.0), _BIAS) if self.train else (),
                fillers=self.train,
            ),
        ]

    def _activation(self, conv: ConvDesc) -> tuple[list[LayerDesc], str]:
        """The layers of the activation, which end in the blob `conv.top`, and the blob that they start from."""
        kind, top = conv.activation, conv.top
        if kind == "none":
            return [], top
        if kind == "relu" or (kind == "relu6" and self.dialect.activation == "relu"):
            return [ReLU(name=f"{conv.name}/relu", bottoms=(top,), tops=(top,))], top
        alike = self.dialect.activation == "relu6"  # only ReLU6 can be in place, see `_bounded`
        linear = f"{conv.name}/linear"
        if kind == "relu6":
            start = top if alike else linear
            return self._bounded(f"{conv.name}/relu", start, top), start
        ramp = f"{conv.name}/ramp"
        start = ramp if alike else f"{conv.name}/shifted"
        shift = Power(name=f"{conv.name}/shift", bottoms=(linear,), tops=(start,), shift=3.0)
        layers = [shift, *self._bounded(f"{conv.name}/relu", start, ramp)]
        if kind == "hard_sigmoid":
            gate = Power(name=f"{conv.name}/gate", bottoms=(ramp,), tops=(top,), scale=self.gate_scale)
            return [*layers, gate], linear
        # x * relu6(x + 3) first and * 1/6 last, since TensorFlow rounds in this order. It also leaves the blob `ramp`
        # as ReLU6 made it, which the backward passes of ReLU6 and of the product read.
        # In training, Power is not in place: it writes its bottom's gradient before it reads its top's
        # (power_layer.cpp, Backward_cpu).
        name = f"{conv.name}/product"
        blob = name if self.train else top
        product = Eltwise(name=name, bottoms=(linear, ramp), tops=(blob,), operation="PROD")
        return [*layers, product, Power(name=f"{conv.name}/sixth", bottoms=(blob,), tops=(top,), scale=1 / 6)], linear

    def _bounded(self, name: str, bottom: str, top: str) -> list[LayerDesc]:
        """relu6 from `bottom` to `top`.

        ReLU6 may be in place: its backward pass passes gradients where values are strictly between 0 and 6, which is
        the same for bottom and top. Clip's backward pass includes the bounds, so it needs its bottom unchanged.
        Stock is 6 - relu(6 - relu(x)). Each ReLU is in place in a blob that no later layer writes, since its backward
        pass reads the signs there.
        Activation relu drops the upper bound of a plain ReLU6 only. Hard-swish and gate keep it (as stock layers):
        without it, the error of their product with x would grow with x.
        """
        if self.dialect.activation == "relu6":
            return [ReLU6(name=name, bottoms=(bottom,), tops=(top,))]
        if self.dialect.activation == "clip":
            return [Clip(name=name, bottoms=(bottom,), tops=(top,), low=0.0, high=6.0)]
        rest = f"{name}/rest"
        return [
            ReLU(name=name, bottoms=(bottom,), tops=(bottom,)),
            Power(name=rest, bottoms=(bottom,), tops=(rest,), scale=-1.0, shift=6.0),
            ReLU(name=f"{name}/bound", bottoms=(rest,), tops=(rest,)),
            Power(name=f"{name}/back", bottoms=(rest,), tops=(top,), scale=-1.0, shift=6.0),
        ]


def _gate(node: GateDesc) -> list[LayerDesc]:
    flat = f"{node.name}/flat"
    return [
        Flatten(name=flat, bottoms=(node.gate,), tops=(flat,)),
        Gate(name=node.name, bottoms=(node.bottom, flat), tops=(node.top,), channels=node.channels, size=node.size),
    ]
