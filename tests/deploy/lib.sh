# Sourced by the tests beside it: where the binaries are, and a way to leave nothing behind.
set -euo pipefail
source_dir=${DESCENT_SOURCE_DIR:?set by ctest}
bin=${DESCENT_BINARY_DIR:?set by ctest}
work=$(mktemp -d)
pids=()

skip() {
  echo "SKIPPED: $1"
  exit 77
}
fail() {
  echo "FAILED: $1" >&2
  exit 1
}
# sha256 of a finished run's parameters.
parameters_of() {
  python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["parameters_sha256"])' "$1/summary.json"
}
# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    read -rt 0.05 <> <(:) || true
  done
}
end_processes() {
  for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
}
