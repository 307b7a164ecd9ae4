"""Run make_model.py with pipeline.config text merged over what its options make: TEXT, then its own arguments.

It runs in the OD API's own environment, with make_model.py on PYTHONPATH.
"""

from __future__ import annotations

import sys
from typing import Any

import make_model
from google.protobuf import text_format

merged = sys.argv.pop(1)
built = make_model.pipeline


def pipeline(args: Any, decay: float) -> Any:
    return text_format.Merge(merged, built(args, decay))


make_model.pipeline = pipeline
make_model.main()
