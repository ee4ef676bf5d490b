#!/usr/bin/env bash
# An image of Debian's prometheus and promtool, as a stand-in for the published one in tests. Pulls nothing.
# Usage: deploy/debian-prometheus-image.sh TAG
set -euo pipefail

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/root/bin" "$context/data"
# The programs, and the libraries they are linked with, at their own paths.
for program in prometheus promtool; do
    path=$(command -v "$program") || { echo "no $program; install the Debian package prometheus" >&2; exit 69; }
    cp -L "$path" "$context/root/bin/$program"
    for library in $(ldd "$path" | grep -o '/[^ ]*' || true); do
        mkdir -p "$context/root$(dirname "$library")"
        cp -L "$library" "$context/root$library"
    done
done
printf '%s\n' 'FROM scratch' 'COPY root /' 'COPY --chown=65534:65534 data /prometheus' \
    'USER 65534:65534' 'ENTRYPOINT ["/bin/prometheus"]' >"$context/Dockerfile"
docker build --quiet --tag "$1" "$context" >/dev/null
