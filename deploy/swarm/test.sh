#!/usr/bin/env bash
# Deploys stack.yaml on a swarm of this one node and asks whether four shards are one load: the rate at the server, and
# `acceptbench merge` against the sum of what the shards said.
#
# Pulls nothing: the images are made as in compose-test.sh. Takes about a minute once the program is built. A swarm that this
# script made (on 127.0.0.1) it leaves again; one that is there already it uses; stack, images and volume are removed, however
# it ends.
# Usage: deploy/swarm/test.sh        (PROGRAM=PATH takes this static program instead of building one)
set -euo pipefail
cd "$(dirname "$0")/../.."

stack=acceptbench-test-$$
work=$(mktemp -d)
ours=no
deployed=no
export ACCEPTBENCH_IMAGE=$stack:program PROMETHEUS_IMAGE=$stack:prometheus
export RATE=2000 DURATION=10s SHARDS=4 DEADLINE=2s

fail() {
    echo "swarm/test: $*" >&2
    docker stack ps --no-trunc "$stack" >&2 || true
    docker service logs --tail 20 "${stack}_loadgen" >&2 || true
    exit 1
}

clean_up() {
    local code=$? tries
    trap - EXIT
    trap '' INT TERM
    if [ "$deployed" = yes ]; then docker stack rm "$stack" >"$work/rm" 2>&1 || cat "$work/rm" >&2; fi
    # The engine removes tasks later than it says so.
    for tries in $(seq 60); do
        [ -n "$(docker ps --all --quiet --filter "label=com.docker.stack.namespace=$stack")" ] ||
            [ -n "$(docker network ls --quiet --filter "label=com.docker.stack.namespace=$stack")" ] || break
        sleep 0.5
    done
    if [ "$tries" = 60 ]; then echo "swarm/test: the stack is still there after 30 s" >&2; code=1; fi
    docker volume rm --force "${stack}_prometheus-data" >/dev/null 2>&1 || true
    docker image rm --force "$ACCEPTBENCH_IMAGE" "$PROMETHEUS_IMAGE" >/dev/null 2>&1 || true
    if [ "$ours" = yes ]; then
        docker swarm leave --force >/dev/null || code=1
        # What a swarm leaves behind on a node.
        docker network rm docker_gwbridge >/dev/null 2>&1 || true
    fi
    rm -rf "$work"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

images() {
    local context=$work/program host
    if [ -n "${PROGRAM:-}" ]; then
        mkdir "$context"
        cp "$PROGRAM" "$context/acceptbench"
        docker build --quiet --file deploy/Dockerfile --target prebuilt --tag "$ACCEPTBENCH_IMAGE" "$context" >/dev/null
    else
        deploy/image.sh "$ACCEPTBENCH_IMAGE" >/dev/null
        host=$(rustc -vV | sed -n 's/^host: //p')
        PROGRAM=${CARGO_TARGET_DIR:-target}/$host/release/acceptbench
    fi
    deploy/debian-prometheus-image.sh "$PROMETHEUS_IMAGE"
}

# ask EXPRESSION: the values of its samples, nothing when there are none or Prometheus does not answer yet.
ask() {
    docker exec "$prometheus" /bin/promtool query instant http://127.0.0.1:9090 "$1" 2>/dev/null |
        sed -n 's/.* => \([^ ]*\) @.*/\1/p' || true
}

# until_true WHAT SECONDS COMMAND...
until_true() {
    local what=$1 end=$((SECONDS + $2))
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || fail "$what: not within the time"
        sleep 0.5
    done
    echo "  $what"
}

container_of() { docker ps --quiet --filter "label=com.docker.swarm.service.name=${stack}_$1" --filter status=running; }
running() { [ "$(container_of "$1" | wc -l)" = "$2" ]; }
says() { [ "$(ask "$1")" = "$2" ]; }
# Tasks that came before the server's name was known failed, and have successors.
complete() { [ "$(docker service ps --format '{{.CurrentState}}' "${stack}_loadgen" | grep -c '^Complete ')" = 4 ]; }

images
case $(docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}') in
    "inactive "*)
        # Before it is made, so that one that was half made goes, too.
        ours=yes
        docker swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1 >/dev/null
        ;;
    "active true") ;;
    *) echo "swarm/test: this node is in a swarm that it does not manage" >&2; exit 69 ;;
esac
deployed=yes
echo "a stack whose start is not named is refused"
if docker stack deploy --compose-file deploy/swarm/stack.yaml "$stack" >"$work/said" 2>&1; then fail "it was taken"; fi
grep -q "name the start in common" "$work/said" || { cat "$work/said" >&2; fail "it does not say why"; }

echo "four shards of $RATE connections/s for $DURATION"
START_AT=@$(($(date +%s) + 20))
export START_AT
docker stack deploy --resolve-image never --compose-file deploy/swarm/stack.yaml "$stack" >"$work/said" 2>&1 ||
    { cat "$work/said" >&2; fail "deploy"; }
until_true "four shards run, before $START_AT" 19 running loadgen 4
until_true "Prometheus runs" 19 running prometheus 1
prometheus=$(container_of prometheus)
until_true "every shard is scraped" 30 says 'sum(up{job="loadgen"})' 4
says 'acceptbench_listener_accept_queue_limit{job="server"}' 4096 || fail "the queue limit is not 4096"
until_true "they have begun" 30 says 'count(acceptbench_loadgen_target_rate{job="loadgen"} == 500)' 4
until_true "all shards are over" 40 complete
until_true "the rules are loaded" 30 says 'count(listener:acceptbench_accept_queue_fill:max1m{job="server"})' 1

for task in $(docker service ps --quiet "${stack}_loadgen"); do
    docker service logs --raw "$task" 2>/dev/null >"$work/$task.log"
done
cat "$work"/*.log | "$PROGRAM" merge --json - >"$work/merged.json" || fail "merge"
cat "$work"/*.log | "$PROGRAM" merge - 2>/dev/null | sed 's/^/  | /'

# Summed by another program from the shards' own last lines.
python3 - "$work" <<'PYTHON' || fail "the shards are not the load"
import glob, json, sys
ends = []
for log in glob.glob(sys.argv[1] + "/*.log"):
    ends += [e for e in map(json.loads, filter(None, map(str.strip, open(log)))) if e["event"] == "end"]
merged = json.load(open(sys.argv[1] + "/merged.json"))
assert sorted(e["options"]["shard"] for e in ends) == ["1/4", "2/4", "3/4", "4/4"], [e["options"]["shard"] for e in ends]
measured = merged["measured"]
assert measured["planned"] == sum(e["planned"] for e in ends) == 20000, measured["planned"]
for verdict, count in measured["verdicts"].items():
    assert count == sum(e["verdicts"][verdict] for e in ends), verdict
buckets = {}
for end in ends:
    for bucket, count in end["snapshot"]["measured"]["connect-latency"]["buckets"]:
        buckets[bucket] = buckets.get(bucket, 0) + count
assert measured["connect-latency"]["buckets"] == [list(pair) for pair in sorted(buckets.items())]
rate = sum(e["rates"]["planned"] for e in ends)
assert abs(rate - 2000) <= 2, rate
print(f"  planned {measured['planned']}, {rate:.1f} of 2000/s; verdicts and buckets of the merge are the sums of four shards")
PYTHON
established=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["measured"]["established"])' "$work/merged.json")
until_true "the server accepted the $established that the shards say were established" 5 \
    says 'acceptbench_server_accepts_total{job="server"}' "$established"
