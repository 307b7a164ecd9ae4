"""Scripts that are run by the Python of a program's own environment, where this package is not installed.

The contract. `runner.py` starts a script and calls its `run`. It gets a folder, in which lie

    net.prototxt, net.caffemodel   the net
    inputs.npz                     network inputs, float32 (1, 3, height, width), normalised, BGR; `0`, `1`, ...
    calibration.npz                the same, for a program that quantises (int8)
    job.json                       `mean` and `scale` of a pixel, `precision`, `outputs`: the net's, in its order

and leaves outputs.npz there: `0/mbox_loc` is the output `mbox_loc` for the input `0`. A program that loses the names
gives `0/#0`, `0/#1`, ... in its own order. `detection_out` has rows of 7 values: image, class, score, corners.

On stdout it prints JSON, one object a line: `{"versions": ...}`; for each step, `load` and `run`, `{"start": "load"}`
and `{"step": "load", "ok": true, "seconds": 1.2}`; `{"message": ...}` for what a user should know. All that the
program prints goes to log.txt. The exit status is 1 after a step that failed; its last lines then are on stderr.
"""
