#!/usr/bin/env bash
# Builds the static program with this machine's cargo and the image around it. Pulls nothing.
# Usage: deploy/image.sh [TAG]
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:-acceptbench:latest}
host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
    x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
    *) echo "image.sh: $host is neither x86-64 nor aarch64 Linux with glibc" >&2; exit 69 ;;
esac

RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    cargo build --release --locked --package acceptbench --target "$host"

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "${CARGO_TARGET_DIR:-target}/$host/release/acceptbench" "$context/acceptbench"
docker build --quiet --file deploy/Dockerfile --target prebuilt --tag "$tag" "$context" >/dev/null
echo "$tag"
