"""CRC-32C, with which TensorFlow's checkpoints and their indices are guarded, in numpy.

The bytes are cut into lanes of one length, whose sums are computed side by side, two bytes a step, and then joined in
pairs.

Source: the polynomial of RFC 3720, section 12.1; joining as in zlib's crc32_combine; the mask of
tensorflow/core/lib/hash/crc32c.h.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_MOST_LANES = 1 << 13
_LEAST = 1 << 13
"""Bytes of data that is cut into lanes at all; joining them takes as long as this many bytes one by one."""
_LANE = 64
"""Least number of bytes of a lane."""
_Words = npt.NDArray[np.uint32]


@cache
def _table() -> _Words:
    """The state after two bytes, as one little-endian number, from the state 0."""
    table: _Words = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        table = _shifted(table)
    return table


@cache
def _byte_table() -> list[int]:
    table: _Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = _shifted(table)
    return [int(value) for value in table]


def _shifted(states: _Words) -> _Words:
    """The states after one bit of 0."""
    return (states >> np.uint32(1)) ^ np.where(states & np.uint32(1), np.uint32(_POLYNOMIAL), np.uint32(0))


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of bytes."""
    state, start = 0xFFFFFFFF, 0
    if len(data) >= _LEAST:
        lanes = min(_MOST_LANES, 1 << (len(data) // _LANE).bit_length() - 1)
        length = len(data) // lanes // 2 * 2
        start = lanes * length
        pairs = np.frombuffer(data, "<u2", start // 2).reshape(lanes, length // 2)
        state = _joined(_lanes(pairs), length, state)
    table = _byte_table()
    for value in bytes(data[start:]):
        state = table[(state ^ value) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A CRC as TensorFlow stores it: rotated right by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _lanes(pairs: npt.NDArray[np.uint16]) -> _Words:
    """The state of each row's bytes, from the state 0."""
    table, count = _table(), len(pairs)
    states, low, found = np.zeros(count, np.uint32), np.empty(count, np.uint16), np.empty(count, np.uint32)
    for column in np.ascontiguousarray(pairs.T):
        np.bitwise_xor(states, column, out=states)
        low[:] = states  # its lower 16 bits
        np.right_shift(states, 16, out=states)
        table.take(low, out=found, mode="clip")
        np.bitwise_xor(states, found, out=states)
    return states


def _joined(states: _Words, length: int, before: int) -> int:
    """The state of all lanes in a row, from the state `before`.

    The state is linear in the state before and in the data: after the state s and a lane of n bytes, whose own state
    is t, it is zeros(s, n) ^ t, with zeros(s, n) the state s after n bytes of 0.
    """
    zeros = _zeros(length)
    while len(states) > 1:
        states = _applied(zeros, states[0::2]) ^ states[1::2]
        zeros = _applied(zeros, zeros)
    return int(_applied(zeros, np.array([before], np.uint32))[0] ^ states[0])


def _applied(matrix: _Words, states: _Words) -> _Words:
    """A 32 x 32 matrix over bits, given by its columns, times each state."""
    found = np.zeros_like(states)
    for bit in range(32):
        found ^= np.where(states >> np.uint32(bit) & np.uint32(1), matrix[bit], np.uint32(0))
    return found


def _zeros(count: int) -> _Words:
    """The matrix that takes a state over `count` bytes of 0."""
    result = np.array([1 << bit for bit in range(32)], np.uint32)
    table = np.array(_byte_table(), np.uint32)
    step = table[result & 0xFF] ^ (result >> 8)
    while count:
        if count & 1:
            result = _applied(step, result)
        step = _applied(step, step)
        count >>= 1
    return result
