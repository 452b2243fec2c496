#!/usr/bin/env bash
# What to run first on a machine with a GPU, from the root of the repository, in an environment with the package:
#
#   benchmarks/gpu_check.sh OUT [FLAG ...]
#
# Rates and errors of the card, a whole training step in each precision, alone and with XLA, beside the PyTorch peer where PyTorch is
# installed, then the tests whose arithmetic runs on the GPU. What fails does not stop the rest; the exit status tells. Each part writes
# to OUT: its log, JSON, and the card's memory, load and power, once a second. FLAGs go to all benchmarks, e.g. --repetitions=5.
#
# By environment: PYTHON, the interpreter; LIMIT, seconds for each part (240); TESTS, files or folders.
set -uo pipefail

if [ $# -lt 1 ]; then echo "usage: $0 OUT [FLAG ...]" >&2; exit 2; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
mkdir -p "$1" && OUT=$(cd "$1" && pwd) || exit
shift
FLAGS=("$@")
PYTHON=${PYTHON:-python} LIMIT=${LIMIT:-240}
TESTS=${TESTS:-tests/layers tests/losses_test.py tests/players tests/training}
export PYTHONUNBUFFERED=1 TF_FORCE_GPU_ALLOW_GROWTH=true
FAILED=()

part() { # name, command ...
    local name=$1 start=$SECONDS status=0 watcher=
    shift
    echo "== $name"
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi --query-gpu=timestamp,memory.used,utilization.gpu,power.draw --format=csv -l 1 >"$OUT/$name.csv" &
        watcher=$!
    fi
    # Interrupted, pytest and the benchmarks still tell what they have.
    timeout -s INT -k 20 "$LIMIT" "$@" >"$OUT/$name.log" 2>&1 || status=$?
    if [ -n "$watcher" ]; then kill "$watcher"; wait "$watcher" 2>/dev/null; fi
    tail -n 40 "$OUT/$name.log" | cut -c1-200
    if [ "$status" != 0 ]; then FAILED+=("$name"); fi
    echo "== $name: $((SECONDS - start)) s, exit status $status"
}

benchmark() { # name, flag ...
    local name=$1
    shift
    part "$name" "$PYTHON" benchmarks/benchmark.py --out="$OUT/$name.json" "$@" ${FLAGS[@]+"${FLAGS[@]}"}
}

PEERS=
if "$PYTHON" -c 'import torch' 2>/dev/null; then PEERS=well_written,compiled; fi

if command -v nvidia-smi >/dev/null; then part card nvidia-smi; fi
benchmark device --measure=device
benchmark step_32px --measure=peer --peers="$PEERS" --sizes=32px_64 --parts=iteration,attack --batch=64
benchmark step_32px_xla --measure=precision --batch=64 --gin_param='CoTraining.jit_compile = True'
benchmark step_32px_large --measure=peer --peers="$PEERS" --sizes=32px_64 --parts=iteration --batch=512
benchmark step_128px --measure=peer --peers="$PEERS" --sizes=128px_64 --parts=iteration
# shellcheck disable=SC2086
part tests "$PYTHON" -m pytest -q -n "${WORKERS:-4}" --dist loadfile -m "not slow" -p no:cacheprovider -ra $TESTS

if [ ${#FAILED[@]} != 0 ]; then echo "failed: ${FAILED[*]}"; exit 1; fi
echo "all passed; results in $OUT"
