"""Reading the pickles that torch.save writes, without running anything that they ask for.

A pickle is a program for a small machine, and some of its instructions call any function of any library. This machine
knows only the instructions that build numbers, texts, lists and dicts. Where the pickle names a class or a function,
nothing is imported: of the few names that torch.save needs, what they would build is noted (`TensorRef`); a few more,
which training scripts put beside the weights, become an `Opaque`, whose content is lost; all others are refused.

Source: pickletools.py of CPython, which also takes the bytes apart; torch/serialization.py and torch/_utils.py.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from ssdlite_caffe.errors import ModelError

MAX_OPERATIONS = 500_000
"""Of one pickle; a training checkpoint of an SSDlite with its optimizer has some 100,000."""
SAVE = "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"

DTYPES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip
"""Class of a storage in the module torch -> numpy's type code, or `bfloat16`."""

ITEM_SIZES = {"f8": 8, "i8": 8, "f4": 4, "i4": 4, "f2": 2, "bfloat16": 2, "i2": 2, "i1": 1, "u1": 1, "?": 1}
"""Type code -> bytes of a number."""


class StorageRef(NamedTuple):
    """A run of numbers in the file.

    Attributes:
        key: its name in the file.
        dtype: of DTYPES.
        numbers: how many.
    """

    key: str
    dtype: str
    numbers: int


class TensorRef(NamedTuple):
    """A tensor as numbers of a storage; offset and strides count numbers, not bytes."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Opaque:
    """An object that is not read, by the name of its class."""

    name: str


@dataclass(frozen=True)
class _Named:
    """A class or function that the pickle names."""

    name: str


class _Mark:
    """Where a list of values begins on the stack."""


_MARK = _Mark()
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict")
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_OPAQUE = (
    "argparse.Namespace", "builtins.set", "builtins.frozenset", "builtins.slice", "builtins.complex",
    "_codecs.encode", "datetime.datetime", "datetime.timedelta", "torch.device", "torch.Generator",
    "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath", "pathlib.PureWindowsPath",
    "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "numpy.dtype", "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct",
)  # fmt: skip
"""Calls in checkpoints of training scripts that are left undone; what they would give is not needed."""


def load(stream: BinaryIO, source: str) -> Any:
    """The object of the next pickle in a stream, which is read to the pickle's end.

    Returns:
        Numbers, texts, None, lists, tuples and dicts, with TensorRef for tensors and Opaque for what is not read.

    Raises:
        ModelError: the pickle is damaged, or calls something that no weights need.
    """
    machine = _Machine(source)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if count == MAX_OPERATIONS:
                raise ModelError(f"{source} has a pickle of more than {MAX_OPERATIONS} operations; {SAVE}")
            if operation.name == "STOP":
                return machine.pop()
            machine.step(operation.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{source} has a damaged pickle: {_short(error)}") from error
    raise ModelError(f"{source} has a damaged pickle: it has no end")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:160]


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    def popped_to_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise ValueError("a mark is missing")

    def step(self, name: str, argument: Any) -> None:
        """Do one instruction."""
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise ModelError(f"{self.source} has a pickle with the instruction {name}, which no weights need; {SAVE}")

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def tuple_of(self, count: int) -> None:
        values = tuple(self.pop() for _ in range(count))[::-1]
        self.stack.append(values)

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Opaque):
            raise TypeError("values are appended to what is no list")

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(values) % 2:
            raise TypeError("items are set in what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, (str, int, float, bytes)):  # others are no names; the hash of a tuple may take for ever
                target[key] = value

    def name(self, text: str) -> None:
        module, _, rest = text.partition(" ")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        self.stack.append(_Named(f"{module}.{rest}"[:200]))

    def call(self) -> None:
        """What a call would build, for the calls that are known; nothing is called."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Named) or not isinstance(arguments, tuple):
            raise TypeError("what is called is no function")
        name = function.name
        if name in _TENSORS:
            self.stack.append(_tensor(arguments))
        elif name in _PARAMETERS:
            self.stack.append(arguments[0])
        elif name in _DICTS:
            self.stack.append(dict(_pairs(arguments)))
        elif name == "torch.Size":
            self.stack.append(tuple(arguments[0]))
        elif name in _OPAQUE:
            self.stack.append(Opaque(name))
        else:
            raise ModelError(
                f"{self.source} has a pickle that calls {name}, which no weights need; it was not called. If you trust "
                f"the file, load it in Python, and {SAVE}"
            )

    def new_object(self, _: Any = None) -> None:
        """An object of a class: a whole module, or something beside the weights; it is not made."""
        self.pop()  # arguments
        made = self.pop()
        if not isinstance(made, _Named):
            raise TypeError("an object's class is no class")
        self.stack.append({} if made.name in _DICTS else Opaque(made.name))

    def build(self) -> None:
        """The state of an object, such as the _metadata of an OrderedDict; it is not used."""
        self.pop()
        if not isinstance(self.stack[-1], (dict, Opaque, TensorRef)):
            raise TypeError("a state is set in what is no object")

    def persistent(self) -> None:
        found = self.pop()
        if not (isinstance(found, tuple) and len(found) >= 5 and found[0] == "storage"):
            raise ValueError("a storage is not written as torch.save writes it")
        kind, key, count = found[1], found[2], found[4]
        name = kind.name if isinstance(kind, _Named) else ""
        dtype = DTYPES.get(name.removeprefix("torch."))
        if dtype is None or not isinstance(key, str) or not _is_count(count):
            raise ModelError(f"{self.source} has a storage of the type {name or 'unknown'}, which is not read")
        self.stack.append(StorageRef(key, dtype, count))


def _pairs(arguments: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """The items with which an OrderedDict is made: none, or a list of pairs."""
    given = arguments[0] if arguments and isinstance(arguments[0], list) else []
    return [(pair[0], pair[1]) for pair in given if isinstance(pair[0], (str, int))]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _tensor(arguments: tuple[Any, ...]) -> TensorRef:
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, StorageRef) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TypeError("a tensor is not written as torch.save writes it")
    if not all(map(_is_count, (offset, *shape, *strides))) or len(shape) != len(strides) or len(shape) > 32:
        raise ValueError("a tensor's offset, shape or strides are not possible")
    return TensorRef(storage, offset, shape, strides)


_PUSHED = frozenset(
    ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
     "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
     "BINBYTES8")
)  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Opaque("builtins.set"),
    "MARK": lambda: _MARK,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda _, __: None,
    "FRAME": lambda _, __: None,
    "POP": lambda m, _: _drop(m.stack.pop()),
    "POP_MARK": lambda m, _: _drop(m.popped_to_mark()),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "PUT": lambda m, place: m.put(place),
    "BINPUT": lambda m, place: m.put(place),
    "LONG_BINPUT": lambda m, place: m.put(place),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GET": lambda m, place: m.get(place),
    "BINGET": lambda m, place: m.get(place),
    "LONG_BINGET": lambda m, place: m.get(place),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.popped_to_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "LIST": lambda m, _: m.stack.append(m.popped_to_mark()),
    "DICT": lambda m, _: _dict(m),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.popped_to_mark()),
    "ADDITEMS": lambda m, _: m.append(m.popped_to_mark()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.popped_to_mark()),
    "GLOBAL": lambda m, text: m.name(text),
    "STACK_GLOBAL": lambda m, _: m.name(" ".join(reversed([str(m.pop()), str(m.pop())]))),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.new_object(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persistent(),
}


def _dict(machine: _Machine) -> None:
    values = machine.popped_to_mark()
    machine.stack.append({})
    machine.set_items(values)


def _drop(_: Any) -> None:
    """Nothing of a value."""
