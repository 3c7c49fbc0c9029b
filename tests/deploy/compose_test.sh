#!/usr/bin/env bash
# docker-compose up from a clean copy of the project: the quickstart's job on containers. All containers end with 0, the
# accuracy is the quickstart's, and the run directory belongs to the caller (to user 1000 where the caller is root). Then once
# more, while a worker is taken off the network, a server hears nothing from another worker, a server, the coordinator and a worker are
# killed and another server is paused: the same parameters.
source "$(dirname "$0")/lib.sh"
command -v docker-compose >/dev/null || skip "no docker-compose"
docker info >/dev/null 2>&1 || skip "no Docker engine answers"

project=descent-test-$$
copy=$work/descent
cleanup() {
  (cd "$copy" && docker-compose -p "$project" down -v -t 5 >/dev/null 2>&1) || true
  rm -rf "$work"
}
trap cleanup EXIT

git -C "$source_dir" -c safe.directory="$source_dir" ls-files -z --cached --others --exclude-standard |
  (cd "$source_dir" && xargs -0 -I{} sh -c 'test -f "{}" && printf "%s\0" "{}"' | tar --null -T - -cf -) |
  (mkdir -p "$copy" && tar -C "$copy" -xf -)
cd "$copy"

deploy/base-image || fail "no base image"
docker-compose -p "$project" build >"$work/build.log" 2>&1 || fail "the image: $(tail -n 30 "$work/build.log")"
timeout 900 docker-compose -p "$project" up --no-color >"$work/up.log" 2>&1 || fail "up: $(tail -n 40 "$work/up.log")"

for id in $(docker-compose -p "$project" ps -q); do
  state=$(docker inspect -f '{{.Name}} {{.State.ExitCode}}' "$id")
  echo "$state"
  [[ $state == *" 0" ]] || fail "$state: $(tail -n 40 "$work/up.log")"
done
[[ $(docker-compose -p "$project" ps -q | wc -l) -eq 5 ]] || fail "expected 5 containers"

summary=runs/compose/summary.json
[[ -s $summary ]] || fail "no $summary on the host"
python3 - "$summary" <<'PY'
import json, sys
summary = json.load(open(sys.argv[1]))
print("accuracy", summary["accuracy"], "parameters", summary["parameters_sha256"])
assert summary["accuracy"] >= 0.87, summary
PY
expected=$(id -u)
[[ $expected -ne 0 ]] || expected=1000
strangers=$(find runs -not -uid "$expected")
[[ -z $strangers ]] || fail "not owned by $expected: $strangers"

[[ $(id -u) -eq 0 ]] || { echo "not root: containers' processes can't be killed from here"; exit 0; }
whole=$(parameters_of runs/compose)
docker-compose -p "$project" down -v -t 5 >/dev/null 2>&1
export DESCENT_RUN=killed DESCENT_SERVERS=2
docker-compose -p "$project" up -d --no-color >"$work/up2.log" 2>&1 || fail "up: $(tail -n 40 "$work/up2.log")"
container() { docker-compose -p "$project" ps -q "$1" | sed -n "${2:-1}p"; }
# As a crash would: `docker kill` counts as a wish, after which the restart policy rests.
crash() {
  local pid
  pid=$(docker inspect -f '{{.State.Pid}}' "$1")
  [[ $pid -gt 1 ]] || fail "$2 does not run"
  kill -KILL "$pid"
  echo "killed $2"
}
wait_a_moment() { read -rt 2 <> <(:) || true; }
cuts() { compgen -G "runs/killed/checkpoints/cut-*/MANIFEST" >/dev/null; }
generations() { [[ $(compgen -G "runs/killed/checkpoints/generation-*" | wc -l) -gt $1 ]]; }
wait_for 120 cuts || fail "no checkpoint: $(docker-compose -p "$project" logs --no-color | tail -n 40)"
network=${project}_default
away=$(container worker 1)
docker network disconnect "$network" "$away" || fail "a worker can't be disconnected"
server_pid=$(docker inspect -f '{{.State.Pid}}' "$(container server 1)")
deaf=(-s "$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(container worker 2)")" -j DROP)
nsenter -t "$server_pid" -n iptables -A INPUT "${deaf[@]}" || fail "no one-way rule"
wait_a_moment
nsenter -t "$server_pid" -n iptables -D INPUT "${deaf[@]}" || fail "the server died of a partition"
docker network connect --alias worker --alias "${away:0:12}" "$network" "$away" || fail "a worker can't be connected"
echo "a worker was off the network, a server heard nothing from another"
[[ ! -s runs/killed/summary.json ]] || fail "the run was over before it was disturbed"
crash "$(container server 1)" "a server"
wait_for 60 generations 1 || fail "no new generation: $(docker-compose -p "$project" logs --no-color | tail -n 40)"
crash "$(container worker 2)" "a worker"
crash "$(container coordinator)" "the coordinator"
wait_for 60 generations 2 || fail "no new generation: $(docker-compose -p "$project" logs --no-color | tail -n 40)"
docker pause "$(container server 2)" >/dev/null
wait_a_moment
docker unpause "$(container server 2)" >/dev/null
ended() { [[ -s runs/killed/summary.json ]]; }
wait_for 300 ended || fail "hangs: $(docker-compose -p "$project" logs --no-color | tail -n 60)"
killed=$(parameters_of runs/killed)
echo "undisturbed $whole, killed $killed"
[[ $whole == "$killed" ]] || fail "another model after kills"

# A job that can't be done ends, and says so, although containers that fail are started again.
docker-compose -p "$project" down -v -t 5 >/dev/null 2>&1
mkdir -p "$work/no-data"
export DESCENT_RUN=failing DESCENT_SERVERS=1 DESCENT_DATA=$work/no-data DESCENT_RESTARTS=1
docker-compose -p "$project" up -d --no-color >"$work/up3.log" 2>&1 || fail "up: $(tail -n 40 "$work/up3.log")"
at_rest() { ! docker inspect -f '{{.State.Status}}' $(docker-compose -p "$project" ps -q) | grep -qv exited; }
wait_for 180 at_rest || fail "a failed run does not end: $(docker-compose -p "$project" ps)"
[[ $(docker inspect -f '{{.State.ExitCode}}' "$(container coordinator)") -eq 1 ]] || fail "the coordinator of a failed run ended well"
grep -q '"result": "FAILED"' runs/failing/summary.json || fail "$(cat runs/failing/summary.json)"
echo "a failed run ends as one"
