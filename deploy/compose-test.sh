#!/usr/bin/env bash
# Runs the stack of compose.yaml and asks its Prometheus whether what must be true is true.
#
# Pulls nothing: the image is built around a static program made here, and Debian's prometheus stands in for the
# published image. Project, images and port are its own; all of it is removed again, however it ends.
# Usage: deploy/compose-test.sh      (COMPOSE="docker compose" or COMPOSE=docker-compose chooses one of the two)
set -euo pipefail
cd "$(dirname "$0")/.."

project=acceptbench-test-$$
work=$(mktemp -d)
export ACCEPTBENCH_IMAGE=$project:program PROMETHEUS_IMAGE=$project:prometheus PROMETHEUS_PORT=0
unset COMPOSE_FILE COMPOSE_PROJECT_NAME COMPOSE_PROFILES

if [ -z "${COMPOSE:-}" ]; then
    if docker compose version >/dev/null 2>&1; then COMPOSE="docker compose"; else COMPOSE=docker-compose; fi
fi

compose() {
    # shellcheck disable=SC2086 # two words
    $COMPOSE --project-name "$project" --file deploy/compose.yaml "$@"
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
    compose down --volumes --remove-orphans --timeout 2 >"$work/down" 2>&1 || cat "$work/down" >&2
    docker image rm --force "$ACCEPTBENCH_IMAGE" "$PROMETHEUS_IMAGE" >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Debian's prometheus and the libraries it is linked with, at their own paths.
prometheus_image() {
    local program context=$work/prometheus library
    program=$(command -v prometheus) || fail "no prometheus program; install the Debian package prometheus"
    mkdir -p "$context/root/bin" "$context/data"
    cp -L "$program" "$context/root/bin/prometheus"
    for library in $(ldd "$program" | grep -o '/[^ ]*' || true); do
        mkdir -p "$context/root$(dirname "$library")"
        cp -L "$library" "$context/root$library"
    done
    printf '%s\n' 'FROM scratch' 'COPY root /' 'COPY --chown=65534:65534 data /prometheus' \
        'USER 65534:65534' 'ENTRYPOINT ["/bin/prometheus"]' >"$context/Dockerfile"
    docker build --quiet --tag "$PROMETHEUS_IMAGE" "$context" >/dev/null
}

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
        if [ "$states" = "$2 healthy" ]; then return; fi
        sleep 0.5
    done
    fail "$1 is '$states' after $((tries / 2)) s, wanted $2 healthy"
}

# between LOW HIGH EXPRESSION: a PromQL filter. The expression is an aggregate.
between() { echo "($3) >= $1 and ($3) <= $2"; }

deploy/image.sh "$ACCEPTBENCH_IMAGE" >/dev/null
prometheus_image

echo "backlog 64, somaxconn 4096: the backlog is the limit"
export ARRIVALS=constant RATE=300 DEADLINE=2s
BACKLOG=64 SOMAXCONN=4096 compose up --detach --no-build 2>"$work/up" || { cat "$work/up" >&2; fail "up"; }
healthy server 1
healthy loadgen 1
prometheus=$(compose port prometheus 9090)
[[ $prometheus == 127.0.0.1:* ]] || fail "Prometheus is published on $prometheus, not on 127.0.0.1 only"
expect "server is scraped" 'sum(up{job="server"}) == 1'
expect "loadgen is scraped" 'sum(up{job="loadgen"}) == 1'
expect "queue limit" 'acceptbench_listener_accept_queue_limit{job="server"} == 64'
expect "somaxconn" 'acceptbench_sysctl_value{job="server",name="net.core.somaxconn"} == 4096'
expect "descriptors" 'process_max_fds{job="server"} == 20000'
expect "accepts/s" "$(between 270 330 'sum(rate(acceptbench_server_accepts_total[6s]))')"
expect "served/s" "$(between 270 330 'sum(rate(acceptbench_loadgen_verdicts_total{verdict="served"}[6s]))')"
expect "nothing but served" 'sum(acceptbench_loadgen_verdicts_total{verdict!="served"}) == 0'
expect "no overflow" 'acceptbench_netstat_listen_overflows_total{job="server"} == 0'

echo "two load generators"
BACKLOG=64 SOMAXCONN=4096 compose up --detach --no-build --scale loadgen=2 2>"$work/up" || { cat "$work/up" >&2; fail "scale"; }
healthy loadgen 2
expect "loadgens scraped" 'count(up{job="loadgen"} == 1) == 2'
expect "accepts/s" "$(between 540 660 'sum(rate(acceptbench_server_accepts_total[6s]))')"

echo "backlog 1000, somaxconn 8, 100 accepts/s at most: somaxconn is the limit, and the queue overflows"
export BACKLOG=1000 SOMAXCONN=8 ACCEPT_DELAY=10ms NOFILE=10000
compose up --detach --no-build --force-recreate server loadgen 2>"$work/up" || { cat "$work/up" >&2; fail "up again"; }
healthy server 1
healthy loadgen 1
expect "queue limit" 'acceptbench_listener_accept_queue_limit{job="server"} == 8'
expect "backlog asked for" 'acceptbench_listener_backlog_requested{job="server"} == 1000'
expect "descriptors" 'process_max_fds{job="server"} == 10000'
expect "accepts/s" "$(between 50 100 'sum(rate(acceptbench_server_accepts_total[6s]))')"
expect "overflows" 'acceptbench_netstat_listen_overflows_total{job="server"} > 0'
expect "attempts not served" 'sum(acceptbench_loadgen_verdicts_total{verdict!="served"}) > 0'

# SIGTERM: the server drains and ends with 0; a load generator that judges itself the bottleneck ends with 2.
servers=$(compose ps --quiet server)
loadgens=$(compose ps --quiet loadgen)
compose stop --timeout 10 loadgen server 2>/dev/null
ended() { docker inspect --format '{{.State.ExitCode}}' "$1"; }
[ "$(ended "$servers")" = 0 ] || fail "the server ended with $(ended "$servers")"
[[ "$(ended "$loadgens")" =~ ^[02]$ ]] || fail "the load generator ended with $(ended "$loadgens")"
echo "stopped: server $(ended "$servers"), loadgen $(ended "$loadgens")"
