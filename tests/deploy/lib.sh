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

# make_hosts TAG SUBNET NAME...: a network namespace for each name, TAG-NAME with the address SUBNET.1, .2, ..., joined by a
# bridge in TAG-switch. Skips where the kernel gives none.
make_hosts() {
  local tag=$1 subnet=$2 i=0 h
  shift 2
  ip netns add "$tag-switch" 2>/dev/null || skip "this kernel gives no network namespaces"
  ip -n "$tag-switch" link add br0 type bridge
  ip -n "$tag-switch" link set br0 up
  for h in "$@"; do
    h=$tag-$h
    i=$((i + 1))
    ip netns add "$h"
    ip -n "$h" link set lo up
    ip -n "$h" link add eth0 type veth peer name "port$i" netns "$tag-switch"
    ip -n "$tag-switch" link set "port$i" master br0 up
    ip -n "$h" addr add "$subnet.$i/24" dev eth0
    ip -n "$h" link set eth0 up
  done
}
