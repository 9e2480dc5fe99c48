#!/usr/bin/env bash
# Does tinynet work on the GPUs of this machine? One report, of everything that needs one.
#
#     tests/gpu_check.sh [REPORT]        (default: gpu_report.txt)
#
# Every part runs, whatever happens to the others. The report ends with the names of those that
# failed, and the exit code is then 1. PYTHON names the interpreter to use (default: python3).
set -uo pipefail

report=$(realpath -m "${1:-gpu_report.txt}")
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}

if ! gpus=$("$python" -c 'from tinynet import device; print(device.gpu_count())' 2>&1); then
    echo "gpu_check.sh: error: $python cannot run tinynet; name another with PYTHON=..." >&2
    echo "$gpus" >&2
    exit 1
elif [ "$gpus" = 0 ]; then
    echo "gpu_check.sh: error: no GPU answers here; it takes CuPy and a driver:" >&2
    echo "  pip install -e '.[gpu-cuda13]'   (or gpu-cuda12), then nvidia-smi" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()

part() {                                 # part NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    printf '\n=== %s: %s\n' "$name" "$*"
    if "$@" 2>&1; then
        printf -- '--- %s: passed (%d s)\n' "$name" $((SECONDS - start))
    else
        printf -- '--- %s: FAILED (exit code %d, %d s)\n' "$name" $? $((SECONDS - start))
        failed+=("$name")
    fi
}

# shellcheck disable=SC2329              # part calls it
first_losses() {                         # first_losses DEVICE
    "$python" alexnet.py train "$work/patterns" --device "$1" --output-dir "$work/$1" \
        --recipe quickstart --steps 5 --print-freq 1
}

# shellcheck disable=SC2329
same_losses() {
    "$python" - "$work/cpu/log.jsonl" "$work/gpu0/log.jsonl" <<'END'
import json, math, sys

cpu, gpu = ([line["loss"] for line in map(json.loads, open(path)) if line["kind"] == "train"]
            for path in sys.argv[1:])
for step, losses in enumerate(zip(cpu, gpu), 1):
    print("step {}: cpu {:.6f}, gpu0 {:.6f}".format(step, *losses))
same = len(cpu) == len(gpu) == 5 and all(
    math.isclose(here, there, rel_tol=1e-3) for here, there in zip(cpu, gpu))
sys.exit(not same)
END
}

check() {
    echo "tinynet on $gpus GPU(s), $(date -u '+%Y-%m-%d %H:%M') UTC," \
        "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv ||
        echo "(no nvidia-smi)"
    "$python" -c 'import cupy; print("CuPy", cupy.__version__); cupy.show_config()' 2>&1

    part tests "$python" -m pytest -m "gpu or two_gpus"
    part doctor "$python" alexnet.py doctor
    part "bench, one device" "$python" alexnet.py bench --device gpu0
    part "bench, two devices" "$python" alexnet.py bench --device gpu0:a,gpu0:b
    part "comparison with PyTorch" "$python" examples/compare_with_torch.py --device gpu0
    part patterns "$python" data/patterns.py "$work/patterns" --train 20 --val 2
    part "training on cpu" first_losses cpu
    part "training on gpu0" first_losses gpu0
    part "same losses" same_losses

    printf '\n'
    if [ ${#failed[@]} -gt 0 ]; then
        printf 'FAILED: %s\n' "${failed[@]}"
        return 1
    fi
    echo "everything passed"
}

check | tee "$work/report"
code=$?
mv "$work/report" "$report" || exit 1
echo "written to $report"
exit $code
