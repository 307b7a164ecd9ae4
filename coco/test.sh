#!/bin/sh
# Average precision of trained weights, by Caffe's DetectionEvaluate. More arguments go to `caffe train`:
#   ./test.sh snapshot/mobilenet_iter_1000.caffemodel -gpu 1
# CAFFE names the program; by default it is the one on the PATH, or else the one that `ssdlite-caffe caffe build` built.
if [ $# -eq 0 ]; then
  echo "usage: $0 WEIGHTS.caffemodel [arguments of caffe train]" >&2
  exit 2
fi
case $1 in
  /*) weights=$1 ;;
  *) weights=$PWD/$1 ;;
esac
shift
set -eu
cd "$(dirname "$0")"
for file in trainval_lmdb/data.mdb test_lmdb/data.mdb; do
  if [ ! -f "$file" ]; then
    echo "$0: $PWD/$file is missing" >&2
    exit 1
  fi
done
if [ -z "${CAFFE:-}" ] && ! CAFFE=$(command -v caffe); then
  prefix=$(ssdlite-caffe caffe which)
  CAFFE=$prefix/bin/caffe
fi
# The GPU that is asked for; without one, GPU 0 where this Caffe can use it and the solver does not say CPU.
asked=
previous=
for argument in "$@"; do
  case $previous in -gpu | --gpu) asked=$argument ;; esac
  case $argument in -gpu=* | --gpu=*) asked=${argument#*=} ;; esac
  previous=$argument
done
can_use() { # GPU $1? Caffe aborts where it cannot, and `exit` keeps the shell from printing that
  (ulimit -c 0; "$CAFFE" device_query -gpu "$1" || exit 1) >/dev/null 2>&1
}
mode=$(sed -n 's/^ *solver_mode: *\([A-Z]*\).*/\1/p' solver_test.prototxt)
if [ -n "$asked" ]; then
  if ! can_use "$asked"; then
    echo "$0: $CAFFE cannot use GPU $asked here; leave out -gpu to run on the CPU" >&2
    exit 1
  fi
elif [ "$mode" != CPU ] && can_use 0; then
  echo "$0: running on GPU 0" >&2
  set -- "$@" -gpu 0
elif [ "$mode" = GPU ]; then
  echo "$0: solver_test.prototxt has solver_mode: GPU, and $CAFFE cannot use one here; write solver_mode: CPU" >&2
  exit 1
else
  echo "$0: running on the CPU" >&2
fi
exec "$CAFFE" train -solver solver_test.prototxt -weights "$weights" "$@"
