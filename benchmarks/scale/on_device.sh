#!/usr/bin/env bash
# `python -m benchmarks.scale` on a machine that is only lent, where Sizewise is not installed and no network is there.
#
#   WHEELS=wheels OUT=out MINUTES=6.5 bash benchmarks/scale/on_device.sh [arguments]     # from the repository's root
#
# WHEELS  folder of wheels of what is missing there (pydantic and what it needs); left out: nothing is missing.
#         Those in its folder `fallback` (an older NumPy) are installed only where numba does not load without.
# OUT     gets tables, results and the log (default: build/scale); a second call goes on with what is there
# PYTHON  default: python3
set -uo pipefail
out=${OUT:-build/scale} python=${PYTHON:-python3} site=${TMPDIR:-/tmp}/scale_site
mkdir -p "$out"
export PYTHONUNBUFFERED=1 TRITON_INTERPRET=0 PYTHONPATH=platform:data_prep${PYTHONPATH:+:$PYTHONPATH}

install() {
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$@" || true
}

if [ -n "${WHEELS:-}" ]; then
  install "$WHEELS"/*.whl
  export PYTHONPATH=$site:$PYTHONPATH
  "$python" -c "import numba" 2> /dev/null || install "$WHEELS"/fallback/*.whl
fi
nvidia-smi --query-gpu=name,memory.total,memory.used,driver_version --format=csv,noheader || true
"$python" -m benchmarks.scale --minutes "${MINUTES:-6.5}" --out "$out" "$@" 2>&1 | tee -a "$out/log.txt"
