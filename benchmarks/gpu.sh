#!/usr/bin/env bash
# Measures Mentor against PyTorch on a GPU in ten to twelve minutes: eager, compiled, f32 (TF32) and bf16; and says what a step
# spends its time on.
#
#   cargo build --release --features cuda -p mentor-bench
#   benchmarks/gpu.sh [PROGRAM] [FOLDER FOR THE RECORDS]
#
# PROGRAM is target/release/mentor-bench unless given, so that a machine without Rust can run it: it needs the driver, the CUDA
# toolkit (CUDA_PATH) and a Python with torch. On the first run kernels are compiled and chosen, which takes most of the time;
# they are kept, so a second run gets further. A record holds the rows that were done when its time was over.
# DEVICE=cpu QUICK=1 benchmarks/gpu.sh tries the script at small sizes.
set -uo pipefail
program=$(realpath "${1:-target/release/mentor-bench}")
records=${2:-benchmarks/results}
device=${DEVICE:-cuda:0}
quick=${QUICK:+--quick}
mkdir -p "$records"
records=$(realpath "$records")
prefix=$records/$(date +%F)-${device//:/}
status=0

step() { printf '\n== %s (%s s so far)\n' "$1" "$SECONDS"; }

# NAME SECONDS OPTIONS...: one table and its record; what does not end in time is cut off and said.
table() {
  local name=$1 seconds=$2
  shift 2
  step "$name"
  timeout "$seconds" "$program" --device "$device" $quick --rounds "${ROUNDS:-5}" \
    --record "$prefix-$name.json" "$@" || { echo "$name: exit status $?"; status=1; }
}

# The kernels of a few steps by the time they take, of ours alone: CubeCL times each, which slows the whole down.
profile() {
  step "profile"
  local folder
  folder=$(mktemp -d)
  printf '[profiling]\nlogger = { level = "medium", file = "%s/kernels.log" }\n' "$folder" >"$folder/cubecl.toml"
  (cd "$folder" && timeout "$1" "$program" --device "$device" $quick --alone --rounds 3 --only "$2" >/dev/null) ||
    { echo "profile: exit status $?"; status=1; }
  if [ -s "$folder/kernels.log" ]; then
    # A table at every synchronisation: the last is that of the last round. Name, time, launches, share.
    awk '/^\| Name / { rows = "" } { if (length(rows) < 65536) rows = rows $0 "\n" } /^\| Total / { last = rows }
      END { printf "%s", last }' "$folder/kernels.log" | tee "$prefix-kernels.txt" | head -20
  else
    echo "no kernel was timed: $device does not go through CubeCL"
  fi
  rm -r "$folder"
}

# How busy the GPU was, several times a second, while NAME ran.
watch_gpu() { nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits -lms 250 >"$1" & }

table steps-f32 170 --only step/,infer/
table steps-bf16 140 --only step/,infer/ --precision bf16
table detectors-f32 90 --only detector/
table operations-f32 90 --only op/
# PyTorch compiles half a minute a net: the plain step and the taught one.
table steps-bf16-compiled 110 --only step/resnet18-pspnet-16 --precision bf16 --compile
profile 40 step/resnet18-pspnet-16-taught
if command -v nvidia-smi >/dev/null; then
  step "how busy the GPU is"
  watch_gpu "$records/busy.csv"
  watcher=$!
  timeout 40 "$program" --device "$device" $quick --alone --rounds 20 --only step/resnet18-pspnet-16-taught || status=1
  kill "$watcher"
  # The second half: kernels are compiled in the first.
  awk -F, '{ busy[NR] = $1; if ($2 > memory) memory = $2 }
    END { for (i = int(NR / 2) + 1; i <= NR; i++) sum += busy[i]
      printf "busy %.0f %% of the time, at most %d MiB in use\n", sum / (NR - int(NR / 2)), memory }' "$records/busy.csv"
  rm "$records/busy.csv"
  nvidia-smi --query-gpu=name,driver_version --format=csv
fi
exit $status
