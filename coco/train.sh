#!/bin/sh
# Trains with Caffe's solver. Arguments go to `caffe train`:
#   ./train.sh -gpu 0
#   ./train.sh -snapshot snapshot/mobilenet_iter_1000.solverstate
# CAFFE names the program; without it, the one on the PATH or the one that `ssdlite-caffe caffe build` built is taken.
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
mkdir -p snapshot
case " $* " in
  *" -snapshot"* | *" --snapshot"* | *" -weights"* | *" --weights"*) ;;
  *) if [ -f initial.caffemodel ]; then set -- -weights initial.caffemodel "$@"; fi ;;
esac
exec "$CAFFE" train -solver solver_train.prototxt "$@"
