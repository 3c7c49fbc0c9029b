#!/usr/bin/env bash
# Hosts that can't reach each other for a while: network namespaces on a bridge, cut off both ways and one way. The run goes
# on within two seconds of healing, and the model has the bits of the undisturbed run. With replicas, primaries and backups that
# can't reach each other while everybody reaches the coordinator: the run goes on within five seconds although nothing heals,
# and once it has, the backups come again.
#   partition_test.sh [SECONDS...]   lengths of the partitions; default 1 5
# DESCENT_PARTITION_PATIENCE: milliseconds in place of the 2,000, for machines that do other things beside.
source "$DESCENT_SOURCE_DIR/tests/deploy/lib.sh"
[[ $(id -u) -eq 0 ]] || skip "network namespaces need root"
command -v ip >/dev/null || skip "no iproute2"
command -v iptables >/dev/null || skip "no iptables"
lengths=("${@:-1 5}")
[[ $# -gt 0 ]] || lengths=(1 5)

patience=${DESCENT_PARTITION_PATIENCE:-2000}
longest=0
for seconds in ${lengths[*]}; do ((seconds <= longest)) || longest=$seconds; done
# Workers wait before each batch, of which each has two a round: a run lasts longer than the partition even where nobody waits
# for the host that is cut off, on any machine.
slow=(--inject-delay-ms 1)
rounds=$(((longest + 5) * 500))

tag=dsp$$
hosts=(a b c d)
cleanup() {
  end_processes
  for h in "${hosts[@]}"; do ip netns pids "$tag-$h" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true; done
  for h in switch "${hosts[@]}"; do ip netns del "$tag-$h" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
make_hosts "$tag" 10.88.0 "${hosts[@]}"

python3 - "$work/train.csv" <<'PY'
import random, sys
stream = random.Random(3)
with open(sys.argv[1], "w") as file:
    file.write(",".join(f"x{i}" for i in range(20)) + ",y\n")
    for _ in range(4096):
        x = [stream.gauss(0, 1) for _ in range(20)]
        file.write(",".join(f"{v:.5f}" for v in x) + f",{int(sum(x[:5]) > x[5])}\n")
PY
cat >"$work/job.textproto" <<JOB
name: "partition"
seed: 7
ranks: 4
batch_size: 32
rounds: $rounds
data { train { csv { path: "$work/train.csv" label: "y" header: true } } cache_dir: "$work/cache" }
model { mlp { hidden: 64 activation: TANH classes: 2 } }
optimizer { adam {} }
learning_rate { constant: 0.001 }
checkpoint { every_rounds: 200 }
cluster { lease_seconds: 2 }
JOB
undisturbed() { # its parameters, of a job file
  rm -rf "$work/local"
  "$bin/descent" run "$1" --servers 2 --workers 2 --run-dir "$work/local" >"$work/local.log" 2>&1 ||
    fail "the local run: $(tail -n 20 "$work/local.log")"
  parameters_of "$work/local"
}
expected=$(undisturbed "$work/job.textproto")
echo "undisturbed $expected"

ask() { # a Python expression of the status s
  ip netns exec "$tag-a" "$bin/descent" status 10.88.0.1:7000 --json 2>/dev/null |
    python3 -c "import json,sys; s=json.load(sys.stdin); print($1)" 2>/dev/null || echo "$2"
}
round_of() { ask 's.get("round", 0), s.get("phase", ""), s.get("generation", 0)' "0 ? 0"; }
# Rules in the namespace of a host against an address: in alone is one way, in and out are both.
block() { # host address one|two
  ip netns exec "$tag-$1" iptables -A INPUT -s "$2" -j DROP
  [[ $3 == one ]] || ip netns exec "$tag-$1" iptables -A OUTPUT -d "$2" -j DROP
}
heal() {
  for h in "${hosts[@]}"; do ip netns exec "$tag-$h" iptables -F; done
}

# start NAME HOST COMMAND...: restarted as a supervisor would, until it ends well.
start() {
  local name=$1 host=$2
  shift 2
  (
    for _ in $(seq 20); do
      status=0
      ip netns exec "$tag-$host" "$@" >>"$work/$name.log" 2>&1 || status=$?
      [[ $status -ne 0 ]] || exit 0
      echo "ended with $status; started again" >>"$work/$name.log"
      read -rt 0.2 <> <(:) || true
    done
    exit 1
  ) &
  pids+=($!)
}

begin() { # job-file run-directory
  local job=$1 dir=$2
  rm -f "$work"/[abcd].log
  pids=()
  start a a "$bin/descent_server" --job "$job" --servers 2 --workers 2 --bind 10.88.0.1:7000 --run-dir "$dir" --resume
  start b b "$bin/descent_server" --coordinator 10.88.0.1:7000 --bind 0.0.0.0:7000 --advertise 10.88.0.2:7000
  start c c "$bin/descent_worker" --coordinator 10.88.0.1:7000 "${slow[@]}"
  start d d "$bin/descent_worker" --coordinator 10.88.0.1:7000 "${slow[@]}"
  running() { [[ $(round_of) == *RUNNING* ]]; }
  wait_for 30 running || fail "did not start: $(tail -n 20 "$work"/[abcd].log)"
}
end() { # run-directory: its parameters, once everybody has ended well
  local status=0 pid
  for pid in "${pids[@]}"; do
    wait_for 120 bash -c "! kill -0 $pid 2>/dev/null" || fail "hangs after the partition: $(tail -n 20 "$work"/[abcd].log)"
    wait "$pid" || status=$?
  done
  [[ $status -eq 0 ]] || fail "a process ended with $status: $(tail -n 10 "$work"/[abcd].log)"
  hash=$(parameters_of "$1")
}

run() { # seconds one|two victim-host victim-address
  local seconds=$1 ways=$2 host=$3 address=$4 dir=$work/run-$1-$2-$3
  begin "$work/job.textproto" "$dir"
  read -rt 0.5 <> <(:) || true
  for other in 1 2 3 4; do
    [[ 10.88.0.$other == "$address" ]] || block "$host" "10.88.0.$other" "$ways"
  done
  read -rt "$seconds" <> <(:) || true
  local before generation
  before=$(round_of)
  heal
  local healed=$(date +%s%N)
  # Progress: the phase is RUNNING and the round is another than when it healed.
  moved() {
    local now
    now=$(round_of)
    [[ $now == *RUNNING* && $now != "$before" ]] || [[ -s $dir/summary.json ]]
  }
  wait_for 20 moved || fail "no progress within 20 s of healing: $before, $(round_of); $(tail -n 20 "$work"/[abcd].log)"
  local took=$((($(date +%s%N) - healed) / 1000000))
  end "$dir"
  echo "$seconds s, $ways way(s), host $host: progress ${took} ms after healing; $hash"
  [[ $hash == "$expected" ]] || fail "another model"
  ((took <= patience)) || late+=("$seconds s $ways $host: $took ms")
}

# The two servers reach each other where workers and the coordinator do, at port 7000, and nowhere else; so neither reaches its
# backup, which listens at a port of its own.
between_replicas() {
  local job=$work/replicas.textproto dir=$work/run-replicas
  sed -e 's/^rounds: .*/rounds: 10000/' "$work/job.textproto" >"$job"
  expected=$(undisturbed "$job")
  echo 'replicas: 1' >>"$job"
  begin "$job" "$dir"
  synced() { [[ $(ask 'sum(x.get("synced", False) for x in s["server"])' 0) == 2 ]]; }
  wait_for 20 synced || fail "backups are not there: $(tail -n 20 "$work"/[abcd].log)"
  local way port
  for way in "INPUT -s" "OUTPUT -d"; do
    for port in --sport --dport; do ip netns exec "$tag-b" iptables -A $way 10.88.0.1 -p tcp "$port" 7000 -j ACCEPT; done
    ip netns exec "$tag-b" iptables -A $way 10.88.0.1 -j DROP
  done
  local cut=$(date +%s%N) stands
  read -rt 1 <> <(:) || true
  stands=$(round_of)
  goes_on() { [[ $(round_of) == *RUNNING* && $(round_of) != "$stands" ]]; }
  wait_for 20 goes_on || fail "stands still at $stands; $(tail -n 20 "$work"/[abcd].log)"
  local took=$((($(date +%s%N) - cut) / 1000000))
  ((took <= patience + 3000)) || late+=("replicas: $took ms")
  heal
  wait_for 40 synced || [[ -s $dir/summary.json ]] || fail "backups do not come again: $(tail -n 20 "$work"/[abcd].log)"
  grep -q "confirms nothing" "$work/a.log" || fail "no backup was given up: $(tail -n 20 "$work"/[abcd].log)"
  grep -q "becomes its backup again" "$work/a.log" || fail "no backup came again: $(tail -n 20 "$work"/[abcd].log)"
  end "$dir"
  echo "between replicas: the run went on ${took} ms after the cut; $hash"
  [[ $hash == "$expected" ]] || fail "another model"
  ! grep -q rolled_back_to "$dir/metrics.jsonl" || fail "clocks were rolled back"
}

late=()
between_replicas
expected=$(undisturbed "$work/job.textproto")
for seconds in ${lengths[*]}; do
  for ways in two one; do
    run "$seconds" "$ways" b 10.88.0.2  # a server
    run "$seconds" "$ways" d 10.88.0.4  # a worker
  done
done
[[ ${#late[@]} -eq 0 ]] || fail "progress later than $patience ms after healing: ${late[*]}"
