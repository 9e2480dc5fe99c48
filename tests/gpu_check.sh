#!/usr/bin/env bash
# Does tinynet work on the GPUs of this machine? One report, of everything that needs one.
#
#     tests/gpu_check.sh [REPORT [PICTURES]]         (default: gpu_report.txt)
#
# PICTURES: a folder of them, train/<class>/* and val/<class>/*; without it they are drawn. Give some
# thousand, of many batches an epoch: each begins with waiting.
# Every part runs, whatever happens to the others. The report ends with the names of those that
# failed, and the exit code is then 1. PYTHON names the interpreter to use (default: python3).
set -uo pipefail

report=$(realpath -m "${1:-gpu_report.txt}")
pictures=${2:+$(realpath -m "$2")}
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

if [ -n "$pictures" ] && ! [ -d "$pictures/train" ]; then
    echo "gpu_check.sh: error: no pictures in $pictures/train/<class>/" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pictures=${pictures:-$work/patterns}
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

# shellcheck disable=SC2329              # part calls them
losses() {                               # losses NAME DEVICE OPTIONS...
    local name=$1 device=$2
    shift 2
    "$python" alexnet.py train "$pictures" --device "$device" --output-dir "$work/$name" \
        --recipe quickstart --steps 100 --print-freq 1 "$@" | tail -n 3
}

# Training is chaotic: what begins as rounding is 1 % after some 20 steps, and everything after 50,
# on one CPU as well, as soon as its convolutions are computed in another way. What a batch's loss
# loses, the mean of twenty keeps: there the CPU's own two forms are 1 % apart. (gpu_losses.py
# compares step by step.)
# shellcheck disable=SC2329
same_losses() {                          # same_losses NAME: means of 20 within 5 % of the CPU's
    "$python" - "$work"/{cpu,im2col,"$1"}/log.jsonl <<'END'
import json, sys

cpu, form, gpu = ([line["loss"] for line in map(json.loads, open(path)) if line["kind"] == "train"]
                  for path in sys.argv[1:])
of_form, of_gpu = ([abs(a - b) / b for a, b in zip(losses, cpu, strict=True)]
                   for losses in (form, gpu))
for step in 1, 5, 10, 20, 50, 100:
    print("step {}: loss {:.6f}, on the GPU {:.6f}; apart so far at most {:.1e}, the CPU's two "
          "forms {:.1e}".format(step, cpu[step - 1], gpu[step - 1], max(of_gpu[:step]),
                                max(of_form[:step])))
near = len(cpu) == 100
for first in range(0, 100, 20):
    own, on_gpu, of_other = (sum(losses[first:first + 20]) / 20 for losses in (cpu, gpu, form))
    print("steps {} to {}: mean loss {:.4f}, on the GPU {:+.2%}, the CPU's other form {:+.2%}"
          .format(first + 1, first + 20, own, on_gpu / own - 1, of_other / own - 1))
    near = near and abs(on_gpu / own - 1) <= 0.05
sys.exit(not near)
END
}

# shellcheck disable=SC2329
waiting() {                              # the share of its time that a step waits for pictures
    "$python" data/imagenet.py "$pictures" "$work/prepared" &&
        "$python" alexnet.py train "$work/prepared" --device gpu0 --workers 8 --steps 300 \
            --print-freq 50 --output-dir "$work/waiting" | tail -n 3 &&
        "$python" - "$work/waiting/log.jsonl" <<'END'
import json, sys

for line in map(json.loads, open(sys.argv[1])):
    if line["kind"] == "train":
        print("step {step}: {images_per_s:,.0f} images/s, waited {waited:.1%}".format(**line))
END
}

check() {
    echo "tinynet on $gpus GPU(s), $(date -u '+%Y-%m-%d %H:%M') UTC," \
        "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv ||
        echo "(no nvidia-smi)"
    "$python" -c 'import cupy; print("CuPy", cupy.__version__); cupy.show_config()' 2>&1

    part tests "$python" -m pytest -q -n 0 -m "gpu or two_gpus"
    part doctor "$python" alexnet.py doctor
    for precision in tf32 fp32; do
        part "profile, $precision" "$python" tests/gpu_profile.py --precision $precision
    done
    part "profile, two devices of one card" "$python" tests/gpu_profile.py --device gpu0:a,gpu0:b
    part "bench, one device" "$python" alexnet.py bench --device gpu0
    for precision in tf32 fp32; do
        part "PyTorch, $precision" "$python" examples/compare_with_torch.py --device gpu0 \
            --precision $precision
    done
    [ -e "$pictures" ] || part patterns "$python" data/patterns.py "$pictures" --train 200 --val 5
    part "losses on cpu" losses cpu cpu
    part "losses on cpu, im2col" losses im2col cpu --conv im2col
    part "losses on gpu0, fp32" losses fp32 gpu0 --precision fp32
    part "losses on gpu0, tf32" losses tf32 gpu0
    part "same losses, fp32" same_losses fp32
    part "same losses, tf32" same_losses tf32
    for precision in fp32 tf32; do
        part "each step, $precision" "$python" tests/gpu_losses.py "$pictures" \
            --precision $precision
    done
    part "waiting for pictures" waiting

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
