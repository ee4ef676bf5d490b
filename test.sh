#!/usr/bin/env bash
# Every check of this project, cheapest first; the first that fails ends it.
#
#   ./test.sh             says which Debian packages are missing, if any, and ends
#   ./test.sh --install   installs them first
#
# Experiments and load run on loopback and in namespaces and containers that are removed again. Without a Docker engine
# the compose stack is skipped; ACCEPTBENCH_REQUIRE_DOCKER=1 makes that a failure. Many tests measure, and a machine with
# other guests disturbs that: up to three tests that fail are run once more, by themselves, and named. ACCEPTBENCH_SWARM=1 makes the engine a swarm
# of one node for another minute, too.
set -euo pipefail
cd "$(dirname "$0")"

section=""
section_began=0

section() {
    section_ends
    section=$1
    section_began=$SECONDS
    printf '\n== %s\n' "$section"
}

section_ends() {
    if [ -n "$section" ]; then printf -- '-- %s: passed in %d s\n' "$section" $((SECONDS - section_began)); fi
}

at_exit() {
    local code=$?
    if [ "$code" != 0 ]; then
        printf '\n-- %s: FAILED after %d s (exit code %d)\n' "${section:-start}" $((SECONDS - section_began)) "$code" >&2
    fi
}
trap at_exit EXIT

fail() {
    echo "test.sh: $*" >&2
    exit 1
}

# --- packages ---------------------------------------------------------------------------------------------------------

# PROGRAM PACKAGE
needed="cc gcc
promtool prometheus
prometheus prometheus
setpriv util-linux
ss iproute2
nginx nginx-light
redis-server redis-server
chromium chromium"

missing_packages() {
    local program package
    # An ordinary user's PATH may lack where nginx is.
    while read -r program package; do
        PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || echo "$package"
    done <<<"$needed" | sort -u
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a service as soon as it is installed, unless policy-rc.d says no. The programs are all we want.
install_packages() {
    local policy=/usr/sbin/policy-rc.d ours=no code=0 package
    if [ ! -e "$policy" ]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null || code=$?
    if [ "$ours" = yes ]; then as_root rm -f "$policy"; fi
    # Nor at the next boot.
    if [ -d /run/systemd/system ]; then
        for package in "$@"; do
            case $package in
                prometheus | redis-server) as_root systemctl disable --quiet "$package.service" || true ;;
                nginx-light) as_root systemctl disable --quiet nginx.service || true ;;
            esac
        done
    fi
    return "$code"
}

section "packages"
case "${1:-}" in
    "") ;;
    --install)
        mapfile -t packages < <(missing_packages)
        if [ "${#packages[@]}" -gt 0 ]; then
            echo "installing ${packages[*]}"
            install_packages "${packages[@]}"
        fi
        ;;
    *) echo "usage: ./test.sh [--install]" >&2; exit 64 ;;
esac
missing=$(missing_packages | xargs)
[ -z "$missing" ] || fail "missing Debian packages: $missing (./test.sh --install installs them)"
for tool in "cargo" "cargo fmt" "cargo clippy"; do
    $tool --version || fail "missing: $tool (https://rustup.rs, with the components rustfmt and clippy)"
done
promtool --version 2>&1 | head -n 1

# kubernetes-validate is a program of PyPI. It is wanted, not needed: a test says when it was skipped.
validator=$(realpath -m "${CARGO_TARGET_DIR:-target}/kubernetes-validate")
if [ "${1:-}" = --install ] && [ ! -x "$validator/bin/kubernetes-validate" ] && ! command -v kubernetes-validate >/dev/null; then
    { python3 -m venv "$validator" && "$validator/bin/pip" install --quiet kubernetes-validate==1.37.0; } ||
        echo "not installed: kubernetes-validate; what it validates is skipped"
fi
PATH=$PATH:$validator/bin

# Nor is a program that renders the Kubernetes files: Debian has none.
if command -v kustomize >/dev/null || command -v kubectl >/dev/null; then
    renders=1
else
    renders=0
    echo "missing: kubectl or kustomize; what deploy/kubernetes comes to is not looked at"
fi

# --- house rules ------------------------------------------------------------------------------------------------------

# Every crate's directory.
mapfile -t roots < <(find . -mindepth 2 -maxdepth 3 -name Cargo.toml -not -path './target/*' -printf '%h\n' | sed 's|^\./||' | sort)

# only PATTERN FILE...: of all Rust code, comments aside, only these files (glob patterns) may match.
only() {
    local pattern=$1 file allowed
    shift
    while read -r file; do
        for allowed in "$@"; do
            # shellcheck disable=SC2053 # a glob on purpose
            if [[ $file == $allowed ]]; then continue 2; fi
        done
        grep -nE "^([^/]|/[^/])*$pattern" "$file" | head -n 3 >&2
        fail "$file: $pattern belongs in $*"
    done < <(grep -rlE --include='*.rs' "^([^/]|/[^/])*$pattern" "${roots[@]}")
}

house_rules() {
    local found
    # One home per library.
    only '\bprometheus::' 'crates/telemetry/src/exposition*'
    only '\b(hyper|hyper_util|http_body_util)::' 'crates/telemetry/src/*'
    # A path into the library, not a call of the engine's module in server/src/tokio.rs.
    only '\btokio::(\{|[a-z_]+::|(join|pin|select|spawn|try_join)!|spawn\(|(main|test)\])' \
        'crates/telemetry/src/admin*' server/src/tokio.rs
    only '\bclap::' '*/opts.rs' 'crates/acceptbench/src/cli*' crates/telemetry/src/{log,scheduling}.rs
    only '\bsocket2::' 'server/*' 'loadgen/*' 'crates/kernel/*' 'crates/probe/*'
    only '\brayon::' 'crates/study/*'
    # The raw client of the peers bench must not share the generator's code, so it has a ring of its own.
    only '\bio_uring::' 'server/src/uring*' 'loadgen/src/uring*' crates/acceptbench/benches/peers/raw/uring.rs
    only '\bunsafe_code\b' crates/kernel/src/{sockopt,namespace,process,shared,fork}.rs server/src/uring.rs loadgen/src/uring.rs \
        crates/acceptbench/benches/peers/raw/uring.rs
    found=$(find "${roots[@]}" -name mod.rs)
    [ -z "$found" ] || fail "a module is a file of its own name: $found"
    # Server and load generator meet over TCP; watch knows neither of them, nor experiments; a recording knows no kernel.
    for pair in "server loadgen" "loadgen server" "watch server" "watch loadgen" "watch lab" "watch study" "recording kernel"; do
        read -r one other <<<"$pair"
        found=$(cargo tree --quiet --locked --package "$one" --edges all --prefix none)
        if grep -q "^$other v" <<<"$found"; then fail "$one depends on $other"; fi
    done
    echo "kept"
}

# --- the rest ---------------------------------------------------------------------------------------------------------

# How many failed tests are looked at again.
most_again=3

# Each program of tests is ended after this many seconds, several times what the longest takes: it is not waited with a
# test that waits for ever, and the others have their turn. (--foreground: Ctrl-C reaches it.)
longest=900
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=timeout --foreground --kill-after=30 $longest"

# Needs the log of `cargo test --no-fail-fast`: runs what failed there once more.
failed_again() {
    local log=$1 names name targets target
    # A program that died says nothing of the tests it had not come to.
    if grep -q "process didn't exit successfully.*signal" "$log"; then return 1; fi
    mapfile -t names < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
    # `-p acceptbench --test e2e`, in the list at the end.
    mapfile -t targets < <(sed -n 's/^    `\(.*\)`$/\1/p' "$log" | sort -u)
    if [ "${#names[@]}" = 0 ] || [ "${#names[@]}" -gt "$most_again" ] || [ "${#targets[@]}" = 0 ]; then return 1; fi
    echo "once more: ${names[*]}"
    for target in "${targets[@]}"; do
        # shellcheck disable=SC2086 # some words
        cargo test --locked $target -- --exact "${names[@]}" 2>&1 | tee -a "$log.again" || return 1
    done
    for name in "${names[@]}"; do
        grep -qxF "test $name ... ok" "$log.again" || return 1
    done
    echo "passed the second time: ${names[*]}"
}

all_tests() {
    local log
    log=$(mktemp)
    cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$log" || failed_again "$log" || return 1
    rm -f "$log" "$log.again"
}

compose_stack() {
    local reason=""
    if ! command -v docker >/dev/null; then
        reason="no docker program"
    elif ! docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
        reason="no Docker engine answers"
    elif ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
        reason="neither docker compose nor docker-compose"
    fi
    if [ -z "$reason" ]; then
        DASHBOARDS=$dashboards deploy/compose-test.sh
        if [ "${ACCEPTBENCH_SWARM:-}" = 1 ]; then deploy/swarm/test.sh; else echo "swarm: skipped; ACCEPTBENCH_SWARM=1 runs it"; fi
    elif [ "${ACCEPTBENCH_REQUIRE_DOCKER:-}" = 1 ]; then
        fail "the compose stack is required: $reason"
    else
        echo "skipped: $reason"
    fi
}

# The program of a unit must exist for systemd-analyze, so it is the one just built.
systemd_units() {
    local directory unit program
    if ! command -v systemd-analyze >/dev/null; then
        echo "skipped: no systemd-analyze"
        return
    fi
    directory=$(mktemp -d)
    program=$(realpath "${CARGO_TARGET_DIR:-target}/debug/acceptbench")
    for unit in deploy/systemd/*.service; do
        sed "s|/usr/local/bin/acceptbench|$program|" "$unit" >"$directory/${unit##*/}"
        # Without --help it would run: only whether the program takes the arguments is asked.
        # shellcheck disable=SC2046 # one word per argument
        "$program" $(sed -n 's|^ExecStart=/usr/local/bin/acceptbench ||p' "$unit") --help >/dev/null || fail "$unit: ExecStart"
    done
    systemd-analyze verify "$directory"/*.service || fail "systemd-analyze verify"
    rm -rf "$directory"
    echo "deploy/systemd/*.service: valid"
}

section "format"
cargo fmt --all --check

section "house rules"
house_rules

section "lints"
cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --no-deps

section "tests"
ACCEPTBENCH_REQUIRE_NETNS=1 ACCEPTBENCH_REQUIRE_PROMETHEUS=1 ACCEPTBENCH_REQUIRE_CHROMIUM=1 ACCEPTBENCH_REQUIRE_KUBECTL=$renders \
    ACCEPTBENCH_REQUIRE_SERVERS=1 all_tests

section "shipped experiments"
"${CARGO_TARGET_DIR:-target}/debug/acceptbench" check experiments/*.toml

section "dashboards"
# As the tests built it: by itself it would be built again, with other features of what it shares with the rest.
dashboards=${CARGO_TARGET_DIR:-target}/debug/dashboards
"$dashboards" --check

section "Prometheus configuration"
promtool check config deploy/prometheus/*.yml deploy/swarm/prometheus.yml
promtool check rules dashboards/prometheus/*.rules.yml
promtool test rules dashboards/prometheus/*.test.yml

section "systemd units"
systemd_units

section "compose stack"
compose_stack

section_ends
printf '\nall passed in %d s\n' "$SECONDS"
