#!/usr/bin/env bash
# Measures Mentor against PyTorch on a GPU in about ten minutes: eager, compiled, f32 (TF32) and bf16.
#
#   cargo build --release --features cuda -p mentor-bench
#   benchmarks/gpu.sh [PROGRAM] [FOLDER FOR THE RECORDS]
#
# PROGRAM is target/release/mentor-bench unless given, so that a machine without Rust can run it: it needs the driver, the CUDA
# toolkit (CUDA_PATH) and a Python with torch. DEVICE=cpu QUICK=1 benchmarks/gpu.sh tries the script at small sizes.
set -uo pipefail
program=${1:-target/release/mentor-bench}
records=${2:-benchmarks/results}
device=${DEVICE:-cuda:0}
quick=${QUICK:+--quick}
mkdir -p "$records"
status=0

# NAME SECONDS OPTIONS...: one table and its record; what does not end in time is cut off and said.
table() {
  local name=$1 seconds=$2
  shift 2
  printf '\n== %s (%s s so far)\n' "$name" "$SECONDS"
  timeout "$seconds" "$program" --device "$device" $quick --rounds "${ROUNDS:-5}" \
    --record "$records/$(date +%F)-${device//:/}-$name.json" "$@" || { echo "$name: exit status $?"; status=1; }
}

table steps-f32 120 --only step/,infer/
table steps-bf16 120 --only step/,infer/ --precision bf16
table operations-f32 120 --only op/
table steps-bf16-compiled 180 --only step/ --precision bf16 --compile
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.used --format=csv
exit $status
