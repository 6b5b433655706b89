#!/usr/bin/env bash
# Checks and times on a machine that is only lent, with PyTorch, Triton, NumPy, numba, pyarrow and pytest and no network.
#
#   WHEELS=wheels OUT=out LIMIT=265 bash benchmarks/gpu/on_device.sh         # from the repository's root
#
# WHEELS  folder of wheels of what is missing there (pydantic and what it needs); left out: nothing is missing.
#         Those in its folder `fallback` (an older NumPy) are installed only where numba does not load without.
# OUT     gets results.md, written as tables are measured, and the logs (default: build/gpu)
# LIMIT   seconds for all of it; parts for which none are left are left out, and measured by the next call (default: 265)
# KEPT    folder for what parts have measured: a second call goes on there (default: build/gpu_parts)
# PYTHON  default: python3
#
# FBGEMM  an archive (tar.xz) of FBGEMM's package, reduced to what this card and these kernels take; left out: not measured
#
# Tests of the kernels run first, in several processes, and beside them NVIDIA's memory checker on a few of them, where
# it is installed; then `python -m benchmarks.gpu`, each part in a process of its own. A failure of one leaves the others.
set -u
export OUT=${OUT:-build/gpu} KEPT=${KEPT:-build/gpu_parts}
limit=${LIMIT:-265} python=${PYTHON:-python3} failed=0
mkdir -p "$OUT" "$KEPT"
export PYTHONUNBUFFERED=1 TRITON_INTERPRET=${TRITON_INTERPRET:-0}
export PYTHONPATH=platform:data_prep${PYTHONPATH:+:$PYTHONPATH}

say() { echo "[$SECONDS s] $*" | tee -a "$OUT/log.txt"; }

install() { # wheels... -> a folder in front of all others
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$KEPT/site" "$@" \
    > "$OUT/pip.log" 2>&1 || say "installing failed: see pip.log"
}

if [ -n "${WHEELS:-}" ]; then
  install "$WHEELS"/*.whl
  export PYTHONPATH=$PWD/$KEPT/site:$PYTHONPATH
  case $KEPT in /*) export PYTHONPATH=$KEPT/site:$PYTHONPATH ;; esac
  if ! "$python" -c "import numba" > "$OUT/numba.log" 2>&1; then
    say "numba does not load ($(tail -n 1 "$OUT/numba.log")): installing the older NumPy"
    install "$WHEELS"/fallback/*.whl
  fi
fi
rm -f "$OUT/numba.log"
if [ -n "${FBGEMM:-}" ]; then
  mkdir -p "$KEPT/fbgemm" && "$python" -m tarfile -e "$FBGEMM" "$KEPT/fbgemm" > /dev/null 2>&1 || say "FBGEMM: unpacking failed"
  case $KEPT in /*) export PYTHONPATH=$KEPT/fbgemm:$PYTHONPATH ;; *) export PYTHONPATH=$PWD/$KEPT/fbgemm:$PYTHONPATH ;; esac
fi
say "commit ${COMMIT:-unknown}; $(nvidia-smi --query-gpu=name,memory.total,memory.used,driver_version --format=csv,noheader 2>&1 | head -n 1)"
say "$("$python" -c "
import numba, numpy, pyarrow, pydantic, torch, triton
print('torch', torch.__version__, 'triton', triton.__version__, 'numpy', numpy.__version__, 'numba', numba.__version__,
      'pydantic', pydantic.VERSION, 'CUDA', torch.cuda.is_available())" 2>&1 | tail -n 1)"

tests() { # seconds, command in front, arguments: some of the tests that need a GPU
  # Without conftest.py, which loads what studies need; modules beside it are found all the same.
  OMP_NUM_THREADS=2 PYTHONPATH=$PYTHONPATH:$PWD/tests timeout -k 5 "$1" ${2:+$2} \
    "$python" -m pytest -q --noconftest --continue-on-collection-errors -p no:cacheprovider --tb=short "${@:3}"
}
kernels=tests/sizewise/embedding/kernels/gpu/test_gpu_kernels.py

if [ ! -e "$KEPT/tests.passed" ]; then
  checker=
  if command -v compute-sanitizer > /dev/null; then
    # Without PyTorch's cache of memory each tensor has an allocation of its own, whose ends are guarded.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 tests 70 "compute-sanitizer --tool memcheck --error-exitcode 9" \
      "$kernels" -k "lookup_and_scatter and (full or sign or unaligned)" > "$OUT/sanitizer.log" 2>&1 &
    checker=$!
  fi
  if tests 90 "" -n 8 --maxfail=40 "$kernels" tests/sizewise/embedding/kernels/gpu/test_gpu_on_device.py \
    tests/contracts/embedding/test_embedding_contract.py -k "not contract or devices_agree" > "$OUT/tests.log" 2>&1; then
    touch "$KEPT/tests.passed"
  else
    failed=1
  fi
  say "tests: $(tail -n 1 "$OUT/tests.log")"
  grep -E "^(FAILED|ERROR)|^E  " "$OUT/tests.log" | cut -c 1-300 | head -n 30
  if [ -n "$checker" ]; then
    wait $checker
    say "memory checker: exit code $? (0: no fault, 9: faults, 124: stopped);" \
      "$(grep -h "ERROR SUMMARY\|passed\|failed" "$OUT/sanitizer.log" | tr '\n' ' ')"
  fi
fi

"$python" -m benchmarks.gpu --out "$KEPT" --results "$OUT/results.md" --seconds $((limit - SECONDS - 5)) ${FLAGS:-} \
  2>&1 | tee -a "$OUT/log.txt"
[ "${PIPESTATUS[0]}" = 0 ] || failed=1
cp "$KEPT/tuning.md" "$OUT/" 2> /dev/null
say "done"
exit $failed
