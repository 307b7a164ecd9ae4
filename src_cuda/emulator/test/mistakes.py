"""Mistakes that the emulator has to find, and a copy of the layers' code that has them all.

Each is a change of one place. In the copy it is made only in a run that asks for its number, with the environment
variable SEEDED_MISTAKE, so that one build serves for all.

Usage: python mistakes.py FROM TO   (FROM: a .cu or .cuh; TO: the copy, not yet rewritten as C++)
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

WRONG_VALUES = ""


@dataclass(frozen=True)
class Mistake:
    """A change of `old`, which stands in the file once, to `new`, where SEEDED is true in a run that asks for it.

    `found` is the kind of the first finding, of several where the order of threads decides, or WRONG_VALUES where only
    the results tell. `test` is the name of one of GoogleTest's tests.
    """

    name: str
    file: str
    old: str
    new: str
    found: tuple[str, ...]
    test: str


BLOCK_SUM = "block_sum.cuh"
DEPTHWISE = "depthwise_conv_layer.cu"
LOOPS = "DepthwiseConvolutionLayerTest/2.RandomShapesAgainstLoops"

MISTAKES = (
    Mistake(
        "no barrier before a shared array is written again",
        BLOCK_SUM,
        "  __syncthreads();  // threads may still read",
        "  if (!SEEDED) { __syncthreads(); }  // threads may still read",
        ("race",),
        LOOPS,
    ),
    Mistake(
        "no barrier before a shared array is read",
        BLOCK_SUM,
        "  __syncthreads();\n  if (threadIdx.x < kWarp) {",
        "  if (!SEEDED) { __syncthreads(); }\n  if (threadIdx.x < kWarp) {",
        ("race", "unwritten"),
        LOOPS,
    ),
    Mistake(
        "all threads of a warp write its shared value",
        BLOCK_SUM,
        "if (threadIdx.x % kWarp == 0) { of_warp",
        "if (threadIdx.x % kWarp == 0 || SEEDED) { of_warp",
        ("race",),
        LOOPS,
    ),
    Mistake(
        "a barrier that only the first warp reaches",
        BLOCK_SUM,
        "of_warp[threadIdx.x / kWarp] = value; }",
        "of_warp[threadIdx.x / kWarp] = value; }\n  if (SEEDED && threadIdx.x < kWarp) { __syncthreads(); }",
        ("barrier",),
        LOOPS,
    ),
    Mistake(
        "shuffles begin at a quarter of the warp",
        BLOCK_SUM,
        "for (int apart = kWarp / 2;",
        "for (int apart = SEEDED ? kWarp / 4 : kWarp / 2;",
        (WRONG_VALUES,),
        LOOPS,
    ),
    Mistake(
        "a shuffle's mask leaves out half of the warp",
        BLOCK_SUM,
        "{ value += __shfl_down_sync(0xffffffffu",
        "{ value += __shfl_down_sync(SEEDED ? 0xffffu : 0xffffffffu",
        ("mask",),
        LOOPS,
    ),
    Mistake(
        "a shuffle's width is half the number of warps",
        BLOCK_SUM,
        "      value += __shfl_down_sync(0xffffffffu, value, apart);",
        "      value += __shfl_down_sync(0xffffffffu, value, apart, SEEDED ? Threads / kWarp / 2 : kWarp);",
        (WRONG_VALUES,),
        LOOPS,
    ),
    Mistake(
        "sums that begin with no value",
        DEPTHWISE,
        "Dtype sum[K > 0 ? K * K + 1 : 1] = {};",
        "Dtype sum[K > 0 ? K * K + 1 : 1];\n  for (Dtype& one : sum) { if (!SEEDED) { one = 0; } }",
        (WRONG_VALUES,),
        LOOPS,
    ),
    Mistake(
        "a column beyond the edge is read",
        DEPTHWISE,
        "ix >= 0 && ix < s.width ? __ldg(line + ix)",
        "ix >= 0 && ix < s.width + SEEDED ? __ldg(line + ix)",
        ("out of bounds", WRONG_VALUES),
        LOOPS,
    ),
    Mistake(
        "a row beyond the edge is written",
        DEPTHWISE,
        "if (y + r < s.out_height) {",
        "if (y + r < s.out_height + SEEDED) {",
        ("race", "out of bounds"),
        LOOPS,
    ),
    Mistake(
        "a row beyond the last plane is written",
        DEPTHWISE,
        "Dtype* out = output + (static_cast<int64_t>(plane) * s.out_height + y)",
        "Dtype* out = output + (static_cast<int64_t>(plane) * s.out_height + y + SEEDED)",
        ("out of bounds",),
        LOOPS,
    ),
    Mistake(
        "an array of the thread's own is read beyond its end",
        DEPTHWISE,
        "kernel[(i - r * S) * K + j]",
        "kernel[(i - r * S) * K + j + (SEEDED ? K : 0)]",
        ("undefined",),
        LOOPS,
    ),
    Mistake(
        "the bias's sum is not stored",
        DEPTHWISE,
        "t < (K > 0 ? K * K + 1 : 1); ++t",
        "t < (K > 0 ? K * K + 1 : 1) - SEEDED; ++t",
        ("unwritten",),
        LOOPS,
    ),
    Mistake(
        "all threads store the block's sum",
        DEPTHWISE,
        "if (threadIdx.x == 0) { to[t] = total; }",
        "if (threadIdx.x == 0 || SEEDED) { to[t] = total; }",
        ("race",),
        LOOPS,
    ),
    Mistake(
        "a gradient is added to memory that holds none",
        DEPTHWISE,
        "input_diff[at] = sum;",
        "input_diff[at] = SEEDED ? input_diff[at] + sum : sum;",
        (WRONG_VALUES,),
        LOOPS,
    ),
    Mistake(
        "no blocks for the last channel",
        DEPTHWISE,
        "const dim3 grid(K > 0 ? channels :",
        "const dim3 grid(K > 0 ? channels - (SEEDED && channels > 1) :",
        ("unwritten",),
        LOOPS,
    ),
    Mistake(
        "the kernel is given the host's memory",
        DEPTHWISE,
        "ForwardGpu(shape_, this->num_ * this->channels_, this->channels_, bottom[i]->gpu_data(),",
        "ForwardGpu(shape_, this->num_ * this->channels_, this->channels_,\n"
        "               SEEDED ? bottom[i]->cpu_data() : bottom[i]->gpu_data(),",
        ("out of bounds",),
        LOOPS,
    ),
    Mistake(
        "the host writes to the device's memory",
        DEPTHWISE,
        "Dtype* parts = room->mutable_gpu_data();",
        "Dtype* parts = room->mutable_gpu_data();\n  if (SEEDED) { parts[0] = 0; }",
        ("the host touches the device's memory",),
        LOOPS,
    ),
    Mistake(
        "a value beyond the last one is written",
        "pointwise.cuh",
        "if (i < n) { y[i] = op.Value(x[i]); }",
        "if (i < n + SEEDED) { y[i] = op.Value(x[i]); }",
        ("out of bounds",),
        "PointwiseLayersTest/2.ForwardAndBackwardFollowTheFormula",
    ),
    Mistake(
        "a launch of no blocks",
        "pointwise.cuh",
        "return (n - 1) / CAFFE_CUDA_NUM_THREADS + 1;",
        "return (n - 1) / CAFFE_CUDA_NUM_THREADS + !SEEDED;",
        ("invalid configuration argument",),
        "PointwiseLayersTest/2.ForwardAndBackwardFollowTheFormula",
    ),
    Mistake(
        "one of the ones is not set",
        "base_conv_layer.cu",
        "caffe_gpu_set(out_spatial_dim_, Dtype(1), ones_.mutable_gpu_data());",
        "caffe_gpu_set(out_spatial_dim_ - SEEDED, Dtype(1), ones_.mutable_gpu_data());",
        ("unwritten",),
        "ConvGradientsTest/2.GradientsAddUp",
    ),
)


def seed(text: str, file: str) -> str:
    """The file's text with all of its mistakes."""
    for number, mistake in enumerate(MISTAKES, start=1):
        if mistake.file != file:
            continue
        if text.count(mistake.old) != 1:
            sys.exit(f"{file}: {text.count(mistake.old)} times in the file: {mistake.old}")
        text = text.replace(mistake.old, mistake.new.replace("SEEDED", f"::emulator::Seeded({number})"))
    return text


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(seed(source.read_text(encoding="utf-8"), source.name), encoding="utf-8")
