#!/bin/sh
# Average precision of trained weights, by Caffe's own DetectionEvaluate. More arguments go to `caffe train`:
#   ./test.sh snapshot/mobilenet_iter_1000.caffemodel -gpu 0
# CAFFE names the program; without it, the one on the PATH or the one that `ssdlite-caffe caffe build` built is taken.
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
exec "$CAFFE" train -solver solver_test.prototxt -weights "$weights" "$@"
