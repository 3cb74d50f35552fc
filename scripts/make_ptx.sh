#!/bin/sh
# Compile engines/device/kernels.cu to the PTX that is committed beside it, so that a GPU machine needs no compiler.
# Usage: scripts/make_ptx.sh [FILE]   (nvcc and ptxas of any CUDA toolkit from 12 on)
set -eu
folder=$(cd "$(dirname "$0")/../engines/device" && pwd)
target=${1:-$folder/kernels.ptx}

# compute_80 runs on every GPU since Ampere. Without fused multiply-add results are the same bits everywhere.
nvcc -ptx -arch=compute_80 -fmad=false -o "$target" "$folder/kernels.cu"

# nvcc writes its own PTX version, which older drivers refuse. 7.0 is the first that knows compute_80; ptxas refuses
# anything in the file that came later.
sed -i 's/^\.version .*/.version 7.0/' "$target"
ptxas -arch=sm_80 -o /dev/null "$target"
