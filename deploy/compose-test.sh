#!/usr/bin/env bash
# Runs the stack of compose.yaml and asks its Prometheus whether what must be true is true.
#
# Pulls nothing: the image is built around a static program made here, and Debian's prometheus stands in for the
# published image. Grafana, for which there is no stand-in, is left out. Project, images and ports are its own; all of it
# is removed again, however it ends.
# Usage: deploy/compose-test.sh      (COMPOSE="docker compose" or COMPOSE=docker-compose chooses one of the two)
# DASHBOARDS is the program of that name, where one is built that belongs to these sources.
set -euo pipefail
cd "$(dirname "$0")/.."

project=acceptbench-test-$$
work=$(mktemp -d)
export ACCEPTBENCH_IMAGE=$project:program PROMETHEUS_IMAGE=$project:prometheus PROMETHEUS_PORT=0
unset COMPOSE_FILE COMPOSE_PROJECT_NAME COMPOSE_PROFILES
# Further files of the stack.
more=()

if [ -z "${COMPOSE:-}" ]; then
    if docker compose version >/dev/null 2>&1; then COMPOSE="docker compose"; else COMPOSE=docker-compose; fi
fi
if [ -z "${DASHBOARDS:-}" ]; then DASHBOARDS="cargo run --quiet --locked --package dashboards --"; fi
# One CPU is enough to be right.
if [ "$(nproc)" = 1 ]; then export LOADGEN_CPUS=0; fi

compose() {
    # shellcheck disable=SC2086 # two words
    $COMPOSE --project-name "$project" --file deploy/compose.yaml "${more[@]}" --profile sweep --profile observe "$@"
}

# shorter SETTLE MEASURE: the shipped sweep with other times, as /short.toml of the container. That every level is read back,
# followed and put back does not take the shipped 12 s a step, which are for whoever looks at Grafana.
shorter() {
    sed -e "s/^settle = \"[^\"]*\"/settle = \"$1\"/" -e "s/^measure = \"[^\"]*\"/measure = \"$2\"/" \
        experiments/sweep.toml >"$work/short.toml"
    chmod 644 "$work/short.toml"
    [ "$(grep -cx -e "settle = \"$1\"" -e "measure = \"$2\"" "$work/short.toml")" = 2 ] || fail "sweep.toml has other lines"
}

# quietly WHAT ARGUMENT...: compose, whose words are shown only when it fails.
quietly() {
    local what=$1
    shift
    compose "$@" >"$work/said" 2>&1 </dev/null || { cat "$work/said" >&2; fail "$what"; }
}

fail() {
    echo "compose-test: $*" >&2
    compose ps >&2 || true
    compose logs --tail 20 >&2 || true
    exit 1
}

clean_up() {
    local code=$?
    trap - EXIT
    trap '' INT TERM
    compose down --volumes --remove-orphans --timeout 2 >"$work/down" 2>&1 || cat "$work/down" >&2
    docker image rm --force "$ACCEPTBENCH_IMAGE" "$PROMETHEUS_IMAGE" >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ask EXPRESSION: the value of its only sample, nothing when there is none or Prometheus does not answer yet.
ask() {
    promtool query instant "http://$prometheus" "$1" 2>/dev/null | sed -n 's/.* => \([^ ]*\) @.*/\1/p' || true
}

# expect WHAT EXPRESSION: waits until the PromQL expression has exactly one sample.
expect() {
    local what=$1 expression=$2 value tries
    for tries in $(seq 60); do
        value=$(ask "$expression")
        if [ -n "$value" ] && [ "$(wc -l <<<"$value")" = 1 ]; then
            echo "  $what: $value"
            return
        fi
        sleep 0.5
    done
    fail "$what: after $tries tries still not so: $expression"
}

# healthy SERVICE COUNT
healthy() {
    local ids states tries
    for tries in $(seq 120); do
        ids=$(compose ps --quiet "$1")
        # shellcheck disable=SC2086 # one word per container
        states=$([ -z "$ids" ] || docker inspect --format '{{.State.Health.Status}}' $ids | sort | uniq -c | xargs)
        if [ "$states" = "$2 healthy" ]; then
            echo "  $1: $states"
            return
        fi
        sleep 0.5
    done
    fail "$1 is '$states' after $((tries / 2)) s, wanted $2 healthy"
}

# between LOW HIGH EXPRESSION: a PromQL filter. The expression is an aggregate.
between() { echo "($3) >= $1 and ($3) <= $2"; }

# sweep_ended CODE LOG: 2 says that trials did not count. On a machine that is busy otherwise the generators may be late;
# nothing else is forgiven.
sweep_ended() {
    local found
    [ "$1" != 0 ] || return 0
    found=$(grep "does not count" "$2" | grep -v "the generator was the bottleneck" || true)
    if [ "$1" != 2 ] || [ -n "$found" ]; then
        cat "$2" >&2
        fail "the sweep ended with $1"
    fi
}

ended() { docker inspect --format '{{.State.ExitCode}}' "$1"; }

# overview_says KNOB: the first panel of the board Overview has one tile, and it says that KNOB binds.
overview_says() {
    local letter query what
    for what in "somaxconn A" "backlog B" "neither C"; do
        letter=${what#* }
        what=${what% *}
        query=$(awk -F'\t' -v letter="$letter" '$3 == letter { print $4 }' <<<"$queries" |
            sed -e 's/\$job/.+/g; s/\$instance/.+/g; s/\$__rate_interval/5s/g')
        if [ "$what" = "$1" ]; then
            expect "Overview: $what binds, of SYNs dropped" "$query"
        elif [ -n "$(ask "$query")" ]; then
            fail "Overview also says that $what binds"
        fi
    done
}

# A port of the loopback on which nobody answers.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
    done
}

# --- what compose.yaml and docs/deploy.md promise, in the order of the latter -------------------------------------------

limit='acceptbench_listener_accept_queue_limit{job="server"}'
somaxconn='acceptbench_sysctl_value{job="server",name="net.core.somaxconn"}'
backlog='acceptbench_listener_backlog_requested{job="server"}'
overflows='sum(rate(acceptbench_netstat_listen_overflows_total{job="server"}[5s]))'
opens='sum(rate(acceptbench_netstat_passive_opens_total{job="server"}[5s]))'

defaults() {
    echo "as it comes: somaxconn 128 binds, and the queue overflows within 30 s"
    quietly "up" up --detach --no-build server loadgen prometheus
    healthy server 1
    healthy loadgen 1
    healthy prometheus 1
    prometheus=$(compose port prometheus 9090)
    [[ $prometheus == 127.0.0.1:* ]] || fail "Prometheus is published on $prometheus, not on 127.0.0.1 only"
    expect "server is scraped" 'sum(up{job="server"}) == 1'
    expect "loadgen is scraped" 'sum(up{job="loadgen"}) == 1'
    expect "the rules are loaded" 'max(listener:acceptbench_accept_queue_fill:max1m{job="server"})'
    expect "queue limit" "$limit == 128"
    expect "somaxconn" "$somaxconn == 128"
    expect "backlog" "$backlog == 4096"
    expect "descriptors" 'process_max_fds{job="server"} == 20000'
    expect "fraction of SYNs dropped" "$overflows / ($overflows + $opens) > 0.2"
    overview_says somaxconn
}

another_limit() {
    echo "SOMAXCONN=64: the server is made anew, the load generator finds it"
    SOMAXCONN=64 BACKLOG=4096 quietly "up server" up --detach --no-build server
    healthy server 1
    expect "queue limit" "$limit == 64"
    overview_says somaxconn
    expect "served/s of 800" "$(between 100 790 'sum(rate(acceptbench_loadgen_verdicts_total{verdict="served"}[5s]))')"
    echo "SOMAXCONN=1024 BACKLOG=1024: no overflow"
    SOMAXCONN=1024 BACKLOG=1024 quietly "up server" up --detach --no-build server
    healthy server 1
    expect "queue limit" "$limit == 1024"
    expect "served/s of 800" "$(between 795 830 'sum(rate(acceptbench_loadgen_verdicts_total{verdict="served"}[10s]))')"
    expect "overflows" 'acceptbench_netstat_listen_overflows_total{job="server"} == 0'
    overview_says backlog
}

scaled() {
    echo "three load generators, 300 connections/s each"
    export ARRIVALS=constant RATE=300 SOMAXCONN=1024 BACKLOG=1024
    quietly "scale" up --detach --no-build --scale loadgen=3 server loadgen prometheus
    healthy loadgen 3
    expect "loadgens scraped" 'count(up{job="loadgen"} == 1) == 3'
    expect "accepts/s" "$(between 880 930 'sum(rate(acceptbench_server_accepts_total{job="server"}[6s]))')"
    unset ARRIVALS RATE SOMAXCONN BACKLOG
}

# sweeps LEVEL...: every level was somaxconn, and the queue limit with it.
followed() {
    local level
    for level in "$@"; do
        expect "limit $level at somaxconn $level" "max(max_over_time(($limit == $level and on (instance) $somaxconn == $level)[4m:1s])) == $level"
    done
}

sweep() {
    local id began
    echo "the sweep, with three load generators; the server listens again"
    quietly "the shipped sweep" run --rm -T --no-deps sweep check sweep
    shorter 2s 3s
    printf 'services: {sweep: {volumes: ["%s:/short.toml:ro"]}}\n' "$work/short.toml" >"$work/more.yaml"
    more=(--file "$work/more.yaml")
    export ARRIVALS=burst:100/500ms SWEEP=/short.toml
    quietly "sweep" up --detach --no-build --scale loadgen=3 server loadgen prometheus sweep
    began=$SECONDS
    id=$(compose ps --quiet sweep)
    expect "trials are shaded" 'count(count by (phase) (acceptbench_experiment_trial_info{job="sweep"})) == 1'
    timeout 180 docker wait "$id" >/dev/null || fail "the sweep did not end within 180 s"
    docker logs "$id" >"$work/sweep" 2>&1
    sed 's/^/  | /' "$work/sweep"
    echo "  ended with $(ended "$id") after $((SECONDS - began)) s"
    sweep_ended "$(ended "$id")" "$work/sweep"
    followed 16 64 256 1024 4096
    expect "somaxconn is put back" "$somaxconn == 128"
    expect "the limit too" "$limit == 128"
    unset ARRIVALS SWEEP
    more=()
}

sweep_without_relisten() {
    local code=0
    echo "RELISTEN=never: somaxconn steps, the limit stays"
    shorter 500ms 2s
    sed -i '/^\[\[expect\]\]/,$d' "$work/short.toml"
    RELISTEN=never quietly "up server" up --detach --no-build --scale loadgen=1 server loadgen prometheus
    healthy server 1
    expect "queue limit" "$limit == 128"
    RELISTEN=never compose run --rm -T --volume "$work/short.toml:/short.toml:ro" sweep \
        run /short.toml --results /results --admin off >"$work/sweep" 2>&1 </dev/null || code=$?
    sweep_ended "$code" "$work/sweep"
    expect "levels of somaxconn" "count(count_values(\"level\", last_over_time($somaxconn[1s]))) == 1"
    # Up and down again take 25 s.
    expect "most somaxconn" "max(max_over_time($somaxconn[25s])) == 4096"
    expect "least somaxconn" "min(min_over_time($somaxconn[25s])) == 16"
    expect "the limit all along" "(min(min_over_time($limit[20s])) == 128) and (max(max_over_time($limit[20s])) == 128)"
}

observe() {
    local program run_port admin
    echo "the profile observe: a run and the listeners of this host"
    program=$(realpath "${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/release/acceptbench")
    WATCH_PORT=$(free_port) OBSERVE_PORT=$(free_port) run_port=$(free_port)
    OBSERVE_CONFIG=$work/observe.yml
    export WATCH_PORT OBSERVE_PORT OBSERVE_CONFIG
    sed -e "s/127.0.0.1:9090/$prometheus/; s/:9712/:$run_port/; s/:9713/:$WATCH_PORT/; s/:971[01]/:9/" \
        deploy/prometheus/observe.yml >"$OBSERVE_CONFIG"
    chmod 755 "$work"
    chmod 644 "$OBSERVE_CONFIG"
    quietly "observe" up --detach --no-build observe watch
    healthy observe 1
    healthy watch 1
    expect "listeners of this host" 'sum(acceptbench_watch_listeners{job="watch"}) > 0'
    expect "the stack's own port among them" "count(acceptbench_listener_accept_queue_limit{job=\"watch\",listener=\"$prometheus\"}) == 1"
    admin=127.0.0.1:$run_port
    (cd "$work" && "$program" run phantoms --admin "$admin") >"$work/run" 2>&1 || { cat "$work/run" >&2; fail "run"; }
    expect "a run of this host" 'count(last_over_time(acceptbench_experiment_info{job="runner",experiment="phantoms"}[1m])) == 1'
    expect "its attempts" 'sum(last_over_time(acceptbench_loadgen_attempts_total{job="run-loadgen"}[1m])) > 0'
}

# SIGTERM: the server drains and ends with 0; a load generator that judges itself the bottleneck ends with 2.
stopped() {
    local server loadgens id
    server=$(compose ps --quiet server)
    loadgens=$(compose ps --quiet loadgen)
    compose stop --timeout 10 loadgen server 2>/dev/null
    [ "$(ended "$server")" = 0 ] || fail "the server ended with $(ended "$server")"
    for id in $loadgens; do
        [[ "$(ended "$id")" =~ ^[02]$ ]] || fail "a load generator ended with $(ended "$id")"
    done
    echo "stopped: server $(ended "$server"), load generators 0 or 2"
}

compose config >"$work/config" || fail "compose does not take its own file"
# The stack is looked at here, not its speed, so it need not take as long to build.
CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=0 deploy/image.sh "$ACCEPTBENCH_IMAGE" >/dev/null
deploy/debian-prometheus-image.sh "$PROMETHEUS_IMAGE"
queries=$($DASHBOARDS --list | grep "Overview.*'What binds the accept queue'")
echo "Grafana is left out: no image of it can be built here (its dashboards are checked by tests)"
defaults
another_limit
scaled
sweep
sweep_without_relisten
observe
stopped
