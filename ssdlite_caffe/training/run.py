"""Training with Caffe's solver in a training folder: started, resumed, or found to be finished."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ssdlite_caffe.caffe.prefix import caffe_prefix
from ssdlite_caffe.errors import CaffeError, OutputError, TrainingError
from ssdlite_caffe.files import NO_LOCKS, write_text
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import format_message, read
from ssdlite_caffe.training.intervals import default_test_interval, largest_divisor
from ssdlite_caffe.training.kit_check import Kit, check_kit
from ssdlite_caffe.training.metrics import LOG, METRICS, PLOT, drop_after, last_loss
from ssdlite_caffe.training.run_options import RUN, RunOptions, choose_gpu, recall, remember
from ssdlite_caffe.training.snapshots import Snapshot, bytes_of_snapshot, find_snapshots, newest_whole
from ssdlite_caffe.training.start_weights import FIRST, first_weights, write_first
from ssdlite_caffe.training.watch import Progress, Trained, Watch

SOLVER_USED, LOCK = "solver_used.prototxt", ".training"
_WRITTEN = (RUN, FIRST, LOG, METRICS, PLOT)


def train(
    folder: Path,
    options: RunOptions,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train in a training folder.

    Caffe's log goes to train.log, losses and tests to metrics.jsonl and loss.png, the options to run.json; all are in
    the folder and written during the training.

    Args:
        folder: what `write_kit` wrote.
        options: what differs from its solver.
        progress: called at each iteration that Caffe shows.
        say: called with lines for the user.

    Raises:
        SsdliteError: the folder is not fit to run, another training runs in it, or it holds a training and neither
            `resume` nor `force` is given; Caffe stops; the loss is NaN or Inf; a snapshot cannot be written.
    """
    prefix = caffe_prefix(options.prefix)
    if options.resume:
        options = recall(folder, options)
    kit = check_kit(folder, weights=options.weights, finetune=options.finetune)
    solver = _solver(kit, options)
    changed = None if options.resume else first_weights(kit, finetune=options.finetune, say=say)
    with _only_one(folder) as lock:
        start = _resumed(kit, solver, say) if options.resume else None
        replaced = [] if options.resume else _replaced(kit, solver, options)
        if start is not None and start.iteration == solver.max_iter:
            say(f"already at {start.iteration} of {solver.max_iter} iterations")
            return Trained(start.iteration, last_loss(folder, start.iteration), True, start, 0, 0.0)
        gpu = choose_gpu(solver, prefix, options, say)
        modes = caffe_pb2.SolverParameter
        solver.solver_mode = modes.CPU if gpu is None else modes.GPU
        _check_disk(kit, solver, replaced)
        for path in replaced:  # only now that nothing is left to refuse
            path.unlink()
        if start is not None:
            say(f"resuming from iteration {start.iteration}{_extended(folder, solver, start.iteration)}")
            drop_after(folder / METRICS, start.iteration)
        remember(folder, options)
        (folder / solver.snapshot_prefix).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / SOLVER_USED, format_message(solver), force=True)
        arguments = ["train", f"-solver={SOLVER_USED}", "-sigint_effect=stop", "-sighup_effect=snapshot"]
        if start is not None:
            arguments.append(f"-snapshot={os.path.relpath(start.state, folder)}")
        elif kit.weights is not None:
            weights = kit.weights if changed is None else write_first(folder, changed)
            arguments.append(f"-weights={weights.resolve()}")
        if gpu is not None:
            arguments.append(f"-gpu={gpu}")
        strict = {"SSDLITE_STRICT_DATA": "1"} if options.strict else {}
        return Watch(kit, solver, start, progress, say).run(prefix, arguments, lock, strict)


def _solver(kit: Kit, options: RunOptions) -> caffe_pb2.SolverParameter:
    """The solver with what the options change, and intervals that show and test the end of the training."""
    solver = caffe_pb2.SolverParameter()
    solver.CopyFrom(kit.solver)
    if options.iterations is not None:
        solver.max_iter = options.iterations
    if options.seed is not None:
        solver.random_seed = options.seed
    if solver.display:
        solver.display = largest_divisor(solver.max_iter, solver.display)
    interval = solver.test_interval
    if interval and solver.max_iter % interval and kit.solver.max_iter % interval == 0:
        solver.test_interval = default_test_interval(solver.max_iter)
    return solver


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[int | None]:
    """Hold a lock on the training folder; Caffe inherits it, so that it lasts while either process lives.

    Raises:
        OutputError: another training holds it, or the disk fails.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where no Caffe is built
        yield None
        return
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another training runs in {folder}; wait for its end, or stop it") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise OutputError(f"cannot lock {folder}: {error.strerror or error}") from error
        os.set_inheritable(handle, True)
        yield handle
    finally:
        os.close(handle)


def _resumed(kit: Kit, solver: caffe_pb2.SolverParameter, say: Callable[[str], None]) -> Snapshot:
    """The snapshot to continue from.

    Raises:
        CaffeError: there is none that is whole.
        TrainingError: it has more iterations than are asked for.
    """
    found, skipped = newest_whole(find_snapshots(kit.folder, solver), kit.train.net, solver)
    for line in skipped:
        say(line)
    if found is None:
        why = f" ({skipped[0]})" if skipped else f" under {solver.snapshot_prefix}"
        raise CaffeError(f"{kit.folder} has no whole snapshot to resume from{why}; start over with --force")
    if found.iteration > solver.max_iter:
        raise TrainingError(
            f"iterations must be at least {found.iteration}, which are done, got {solver.max_iter}; give --iterations"
        )
    return found


def _replaced(kit: Kit, solver: caffe_pb2.SolverParameter, options: RunOptions) -> list[Path]:
    """Files of an earlier training, which a new one replaces.

    Raises:
        OutputError: there are some, and `force` is not given, or the new training starts from one of them.
    """
    left = [path for path in (kit.folder / name for name in _WRITTEN) if path.exists()]
    for snapshot in find_snapshots(kit.folder, solver):
        left += [path for path in (snapshot.model, snapshot.state) if path.exists()]
    if left and not options.force:
        raise OutputError(
            f"{kit.folder} holds {left[-1].name} of an earlier training; --resume continues it, --force removes it and "
            "starts over"
        )
    if kit.weights is not None and kit.weights.resolve() in [path.resolve() for path in left]:
        raise OutputError(
            f"{kit.weights}, the weights to start from, is of the training that --force removes; copy it to another "
            "folder and give the copy with --weights"
        )
    return left


def _extended(folder: Path, solver: caffe_pb2.SolverParameter, iteration: int) -> str:
    """What a new number of iterations does to the learning rate, for the user; empty where the number is the same."""
    path = folder / SOLVER_USED
    used = read(path, caffe_pb2.SolverParameter) if path.is_file() else solver
    if used.max_iter == solver.max_iter:
        return ""
    if solver.lr_policy != "poly":
        return f", to {solver.max_iter} in place of {used.max_iter} iterations"
    was, now = (_poly(each, iteration) for each in (used, solver))
    return (
        f", to {solver.max_iter} in place of {used.max_iter} iterations: the learning rate falls to 0 over all "
        f"{solver.max_iter}, so it continues at {now:.3g}, not at {was:.3g}"
    )


def _poly(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """The learning rate of an iteration. Source: lr_policy poly in sgd_solver.cpp, GetLearningRate."""
    left = max(0.0, 1.0 - iteration / solver.max_iter)
    return float(solver.base_lr * left**solver.power)


def _check_disk(kit: Kit, solver: caffe_pb2.SolverParameter, replaced: Sequence[Path]) -> None:
    """Refuse to start where the disk has no space for two snapshots; `replaced` are files that will be removed.

    Raises:
        OutputError: it has none.
    """
    needed = bytes_of_snapshot(kit.train.net, solver)
    free = shutil.disk_usage(kit.folder).free + sum(path.lstat().st_size for path in replaced)
    if free < 2 * needed:
        raise OutputError(
            f"the disk of {kit.folder} must have {2 * needed >> 20} MiB free, for two snapshots, and has "
            f"{free >> 20} MiB; remove something"
        )
