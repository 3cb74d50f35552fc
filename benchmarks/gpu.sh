#!/usr/bin/env bash
# benchmarks/gpu.sh WHEELS [OUT]: everything that Wetread measures on an NVIDIA GPU, in under nine minutes.
# WHEELS is a folder from scripts/pack_gpu_wheels, or - where all of it is installed already. Needs no registry; needs a
# python3 with PyTorch for CUDA, ONNX and ONNX Runtime (PYTHON=… chooses it), and the CUDA toolkit unless pycuda's wheel
# is packed. OUT gets gpu.json, gpu.md, and steps.tar.gz with each step's log and record.
# More options go to benchmarks/gpu: -- --only probe --tiny --device cpu
#
# For a GPU machine without a registry, to which files are copied in small parts (the first line takes three minutes):
#   here   TARGET_PYTHON=python3.12 scripts/pack_gpu_wheels .gpu-wheels 3.12 45     # part01 to part06
#   there  mkdir -p ~/wheels && cp -r .gpu-wheels/part01 ~/wheels/                  # once for each part, without pauses
#   there  scripts/unpack_gpu_wheels ~/wheels ~/site                                # with the last part; prints the GPU
#   there  . ~/site/environment && benchmarks/gpu.sh - OUT                          # three files in OUT come back
# Steps are in the order of what must be known first (benchmarks/gpu/__main__.py): does TensorRT for RTX run at all, do
# the shipped models pass, is the device's path the host's, ct-lung against PyTorch, then the large U-Net. If the probe
# says that it does not run, `--only tests-device-path` still tells whether our own kernels do.
set -u

if [ $# -lt 1 ]; then
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
fi
wheels=$1
out=${2:-${OUT:-gpu-out}}
shift; [ $# -gt 0 ] && shift; [ "${1:-}" = "--" ] && shift
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
began=$SECONDS
mkdir -p "$out"
out=$(cd "$out" && pwd)

if [ "$wheels" != "-" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    # What takes too long or fails here is told by the steps: those that need no pycuda still run.
    timeout 200 scripts/unpack_gpu_wheels "$wheels" "$site" >"$out/install.log" 2>&1 ||
        echo "the installation is not complete; see $out/install.log"
    tail -n 4 "$out/install.log"
    . "$site/environment"
fi
# Nine minutes in all.
"$python" -m benchmarks.gpu --out "$out" --seconds $((530 - (SECONDS - began))) "$@" || {
    echo "the steps could not start; $python lacks what the last line names" >&2
    exit 1
}
cd "$out" && rm -rf steps/engines steps/models
[ ! -f install.log ] || mv install.log steps/
tar czf steps.tar.gz steps && rm -r steps
echo "$out/gpu.json and $out/gpu.md are written; $((SECONDS - began)) s"
