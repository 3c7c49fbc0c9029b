#!/usr/bin/env bash
# The installed package serves a user's own project: examples/custom_model is built against it and trains on a cluster.
source "$(dirname "$0")/lib.sh"
trap 'rm -rf "$work"' EXIT

cmake --install "$bin/.." --prefix "$work/prefix" >"$work/install.log" 2>&1 || fail "install: $(tail "$work/install.log")"
if grep -rlE '#include [<"](Eigen|grpc)' "$work/prefix/include"; then
  fail "an installed header includes Eigen or gRPC"
fi
cp -r "$source_dir/examples/custom_model" "$work/custom"
cmake -S "$work/custom" -B "$work/build" -G Ninja -D CMAKE_PREFIX_PATH="$work/prefix" \
  -D CMAKE_CXX_COMPILER_LAUNCHER="$(command -v ccache || true)" >"$work/configure.log" 2>&1 ||
  fail "configure: $(tail -n 30 "$work/configure.log")"
cmake --build "$work/build" >"$work/build.log" 2>&1 || fail "build: $(tail -n 30 "$work/build.log")"

"$work/prefix/bin/descent" run "$work/custom/job.textproto" --servers 2 --workers 2 \
  --worker-binary "$work/build/huber_worker" --run-dir "$work/run" || fail "the run"
/usr/bin/python3 - "$work/run/model/model.npz" <<'PY'
import numpy, sys
model = numpy.load(sys.argv[1])
weights, bias = model["weights"], model["bias"]
print("weights", weights, "bias", bias)
assert abs(weights[0] - 2) < 0.05 and abs(weights[1] + 3) < 0.05 and abs(bias[0] - 0.5) < 0.05
PY
