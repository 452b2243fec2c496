#!/usr/bin/env bash
# One worker, until the run is done: bash tools/distributed/worker.sh HOSTS INDEX --gin_file=... --run_dir=...
# Starts again after a fault or a kill. Ends with 0 (done), 2 (wrong flags, configuration or data), 143 or 130 (a signal).
set -u
export TF_CONFIG
TF_CONFIG=$(${PYTHON:-python} "$(dirname "${BASH_SOURCE[0]}")/tf_config.py" --hosts="$1" --index="$2" --port="${PORT:-2222}") || exit 2
shift 2
trap 'kill -TERM $worker 2>/dev/null' TERM
trap 'kill -INT $worker 2>/dev/null' INT
for _ in $(seq "${STARTS:-100}"); do
  ${PYTHON:-python} -m robgan_tf.train "$@" &
  worker=$!
  wait $worker
  status=$?
  while kill -0 $worker 2>/dev/null; do # a signal ended the waiting: the worker writes its checkpoint
    wait $worker
    status=$?
  done
  case $status in 0 | 2 | 130 | 143) exit $status ;; esac
  echo "worker.sh: ended with status $status, starting again" >&2
  sleep 1
done
exit $status
