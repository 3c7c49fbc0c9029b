#!/usr/bin/env bash
# Separate hosts: four network namespaces, each with an address of its own, joined by a bridge in a fifth. A coordinator
# with a server, a second server and two workers are started by hand, knowing the coordinator's address alone. The
# model must be the one that the same job gives on one machine, bit for bit.
source "$(dirname "$0")/lib.sh"
[[ $(id -u) -eq 0 ]] || skip "network namespaces need root"
command -v ip >/dev/null || skip "no iproute2"

tag=dsc$$
hosts=(a b c d)
cleanup() {
  end_processes
  for h in switch "${hosts[@]}"; do ip netns del "$tag-$h" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

make_hosts "$tag" 10.87.0 "${hosts[@]}"
on() { # host, command...
  local h=$tag-$1
  shift
  exec ip netns exec "$h" "$@"
}

# The job names its data relative to data.root, which each worker maps to where its host has it.
mkdir -p "$work/data"
cp /usr/share/datasets/fashion-mnist/*.gz "$work/data/"
cat >"$work/job.textproto" <<JOB
name: "hosts"
seed: 7
ranks: 4
batch_size: 32
rounds: 120
data {
  root: "/nowhere"
  train { idx { images: "train-images-idx3-ubyte.gz" labels: "train-labels-idx1-ubyte.gz" } }
  validation { idx { images: "t10k-images-idx3-ubyte.gz" labels: "t10k-labels-idx1-ubyte.gz" } }
  cache_dir: "$work/cache"
}
model { mlp { hidden: 32 activation: RELU classes: 10 } }
optimizer { adam {} }
learning_rate { constant: 0.001 }
JOB

"$bin/descent" run "$work/job.textproto" --servers 1 --workers 1 --set "data.root=$work/data" --run-dir "$work/local" \
  >"$work/local.log" 2>&1 || fail "the local run: $(tail -n 20 "$work/local.log")"

(on a "$bin/descent_server" --job "$work/job.textproto" --servers 2 --workers 2 --bind 10.87.0.1:7000 \
  --run-dir "$work/hosts") >"$work/a.log" 2>&1 &
pids+=($!)
main=$!
(on b "$bin/descent_server" --coordinator 10.87.0.1:7000 --bind 0.0.0.0:7000 --advertise 10.87.0.2:7000) >"$work/b.log" 2>&1 &
pids+=($!)
second=$!
(on c "$bin/descent_worker" --coordinator 10.87.0.1:7000 --data-root "$work/data") >"$work/c.log" 2>&1 &
pids+=($!)
first_worker=$!
(on d "$bin/descent_worker" --coordinator 10.87.0.1:7000 --data-root "$work/data") >"$work/d.log" 2>&1 &
pids+=($!)
second_worker=$!

for pid in $main $second $first_worker $second_worker; do
  status=0
  wait "$pid" || status=$?
  [[ $status -eq 0 ]] || fail "a process ended with $status: $(tail -n 20 "$work"/[abcd].log)"
done

local_hash=$(parameters_of "$work/local")
hosts_hash=$(parameters_of "$work/hosts")
echo "local $local_hash"
echo "hosts $hosts_hash"
[[ $local_hash == "$hosts_hash" ]] || fail "another model on separate hosts"
grep -q 10.87.0.2:7000 "$work"/*.log "$work"/hosts/logs/* 2>/dev/null || fail "the second server's address is nowhere told"
