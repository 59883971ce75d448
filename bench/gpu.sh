#!/usr/bin/env bash
# Builds, tests, sanitizes and times momentum's CUDA kernels on a machine with a GPU, in one command and without network.
# The machine needs Python with torch (CUDA) and pybind11, nvcc, cmake and ninja; pytest for the tests, compute-sanitizer
# for the sanitizers, matplotlib for the pictures. A stage whose tool is missing is skipped, a stage that fails does not
# stop the others. Results are named after the GPU.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

# Name and time limit in seconds, in the order they run.
STAGES=(
  "environment 60"
  "build 900"
  "wheel 900"
  "tests 1200"
  "large 600"
  "memcheck 900"
  "racecheck 900"
  "synccheck 900"
  "initcheck 900"
  "bench 1200"
  "train 600"
)
BUILD=build/gpu
SITE=$PWD/$BUILD/site
# Every rule, format and reduction at edge sizes; not everything, the sanitizers slow kernels down a hundredfold.
SANITIZED=(
  tests/ops/test_parity.py tests/ops/test_formats.py tests/ops/test_reduce.py tests/ops/test_blocks.py tests/quant
  -k "edge_sizes or dtype_mixes or generator or kahan or master or against_float64 or states_that or blocks_and_tails or test_shapes"
)

PYTHON=${PYTHON:-python3}
SANITIZER=${SANITIZER:-compute-sanitizer}
results=bench/results
limit=""
dry_run=0
selected=()

usage() {
  cat <<EOF
usage: bench/gpu.sh [--stage NAME]... [--limit SECONDS] [--results FOLDER] [--dry-run] [--list]

  --stage NAME       run this stage only; may be repeated. Default: all, in their order
  --limit SECONDS    time limit of every stage instead of its own
  --results FOLDER   where GPU.json, GPU.png and GPU-train/ go (default: $results)
  --dry-run          print the commands instead of running them
  --list             print the stages and their time limits in seconds

environment: PYTHON (default python3), SANITIZER (default compute-sanitizer)
EOF
}

fail_usage() {
  echo "bench/gpu.sh: $1" >&2
  usage >&2
  exit 2
}

limit_of() {
  local entry
  for entry in "${STAGES[@]}"; do
    if [[ ${entry% *} == "$1" ]]; then
      echo "${limit:-${entry#* }}"
      return
    fi
  done
  return 1
}

while (($#)); do
  case $1 in
    --stage)
      limit_of "${2:-}" >/dev/null || fail_usage "--stage: no stage ${2:-}; there are ${STAGES[*]% *}"
      selected+=("$2")
      shift
      ;;
    --limit)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail_usage "--limit: ${2:-} is not a number of seconds"
      limit=$2
      shift
      ;;
    --results)
      [[ -n ${2:-} ]] || fail_usage "--results needs a folder"
      results=$2
      shift
      ;;
    --dry-run) dry_run=1 ;;
    --list)
      printf '%s\n' "${STAGES[@]}"
      exit
      ;;
    -h | --help)
      usage
      exit
      ;;
    *) fail_usage "unknown option $1" ;;
  esac
  shift
done
((${#selected[@]})) || selected=("${STAGES[@]% *}")

# What nvidia-smi says about the first GPU; in a dry run without one, a placeholder.
query_gpu() {
  local answer
  if answer=$(nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null) && [[ -n $answer ]]; then
    head -n 1 <<<"$answer"
  elif ((dry_run)); then
    echo "$2"
  else
    echo "bench/gpu.sh: nvidia-smi reports no GPU" >&2
    return 1
  fi
}

arch=$(query_gpu compute_cap 0.0) || exit 2
arch=${arch//./}
gpu=$(query_gpu name GPU) || exit 2
gpu=$(tr '[:upper:]' '[:lower:]' <<<"$gpu" | tr -cs '[:alnum:]\n' '-')
export MOMENTUM_CUDA=ON MOMENTUM_CUDA_ARCHS=$arch
export PATH=$PATH:/usr/local/cuda/bin
export PYTHONPATH=$SITE PYTHONUNBUFFERED=1

# Runs one command of the current stage in what is left of its time.
step() {
  if ((dry_run)); then
    printf '  %s\n' "${*@Q}"
    return
  fi
  printf '+ %s\n' "${*@Q}"
  local left=$((deadline - SECONDS))
  ((left > 0)) || left=1
  timeout --kill-after=20 "$left" "$@"
}

# A stage that returns this was skipped; the reason is its last line of output.
readonly SKIPPED=77

needs_module() {
  ((dry_run)) || "$PYTHON" -c "import $1" 2>/dev/null && return
  echo "the Python package $1 is not installed"
  return 1
}

stage_environment() {
  step nvidia-smi &&
    step "$PYTHON" --version &&
    step "$PYTHON" -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name())' &&
    step nvcc --version &&
    step cmake --version &&
    step ninja --version
}

# The same build as `make setup`, into a folder of its own and for this GPU alone.
stage_build() {
  local interpreter # not a launcher's shim: CMake asks it for paths
  interpreter=$("$PYTHON" -c 'import sys; print(sys.executable)') || return
  step cmake -G Ninja -S . -B "$BUILD" -DPython_EXECUTABLE="$interpreter" -DMOMENTUM_CUDA=ON \
    -DMOMENTUM_CUDA_ARCHS="$arch" -DMOMENTUM_ARRAY=ON -DMOMENTUM_EMULATED=OFF &&
    step cmake --build "$BUILD" &&
    step rm -rf "$SITE" &&
    step mkdir -p "$SITE" &&
    step cp -r python/momentum "$SITE" &&
    step cmake --install "$BUILD" --prefix "$SITE" --component wheel &&
    step cmake --install "$BUILD" --prefix "$SITE" --component array &&
    step "$PYTHON" -m momentum info
}

# The wheel a user would build, installed beside the build and imported from there.
stage_wheel() {
  step "$PYTHON" -m pip wheel --no-build-isolation --no-deps --no-index --wheel-dir "$BUILD/wheel" . &&
    step "$PYTHON" -m pip install --no-deps --no-index --upgrade --target "$BUILD/installed" --find-links "$BUILD/wheel" \
      torch-momentum &&
    step env PYTHONPATH="$PWD/$BUILD/installed" "$PYTHON" -m momentum info
}

stage_tests() {
  needs_module pytest || return "$SKIPPED"
  step "$PYTHON" -m pytest --backend cuda -m "not large" \
    tests/ops tests/optim tests/functional tests/zeroth_order tests/quant tests/transport tests/array
}

# More than 2^31 elements, in real memory.
stage_large() {
  needs_module pytest || return "$SKIPPED"
  step "$PYTHON" -m pytest --backend cuda -m large tests
}

# Each allocation on its own, so that an access beyond a tensor is an access beyond an allocation.
sanitize() {
  needs_module pytest || return "$SKIPPED"
  if ! ((dry_run)) && ! command -v "$SANITIZER" >/dev/null; then
    echo "$SANITIZER is not on the PATH; SANITIZER names another place"
    return "$SKIPPED"
  fi
  local filter=--kernel-name # older versions call it --kernel-regex
  if ! ((dry_run)) && ! "$SANITIZER" --help | grep -q -e "$filter"; then
    filter=--kernel-regex
  fi
  step env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$SANITIZER" --tool "$1" --error-exitcode 9 \
    "$filter" kernel_substring=momentum "$PYTHON" -m pytest --backend cuda "${SANITIZED[@]}"
}

stage_memcheck() { sanitize memcheck; }
stage_racecheck() { sanitize racecheck; }
stage_synccheck() { sanitize synccheck; }
stage_initcheck() { sanitize initcheck; }

stage_bench() {
  step "$PYTHON" -m bench --device cuda --check-targets --out "$results/$gpu.json"
}

stage_train() {
  step "$PYTHON" -m bench.train --device cuda --model large --steps 1000 --out "$results/$gpu-train"
}

((dry_run)) || mkdir -p "$BUILD/logs" "$results"
summary=()
failures=0
for stage in "${selected[@]}"; do
  echo "== $stage (at most $(limit_of "$stage") s)"
  start=$SECONDS
  deadline=$((SECONDS + $(limit_of "$stage")))
  if ((dry_run)); then
    "stage_$stage"
    continue
  fi
  "stage_$stage" 2>&1 | tee "$BUILD/logs/$stage.log"
  status=${PIPESTATUS[0]}
  case $status in
    0) verdict=passed ;;
    "$SKIPPED") verdict="skipped: $(tail -n 1 "$BUILD/logs/$stage.log")" ;;
    124 | 137) verdict="out of time" && failures=$((failures + 1)) ;;
    *) verdict="FAILED ($status)" && failures=$((failures + 1)) ;;
  esac
  summary+=("$(printf '%-12s %5d s  %s' "$stage" $((SECONDS - start)) "$verdict")")
done
((dry_run)) && exit
printf '\n== summary: %s, sm_%s\n' "$gpu" "$arch"
printf '%s\n' "${summary[@]}"
((failures == 0))
