#!/usr/bin/env bash
# earthquakes.sh NODE NODE NODE: the example with real data: published twice, there once, the same on every node.
set -euo pipefail
cd "$(dirname "$0")/../.."
export EVERMESH_NODES="$*"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
examples/earthquakes/publish.sh | tee "$log"
grep -q '^1707 published, 0 of them were already there' "$log"
examples/earthquakes/publish.sh | tee "$log"
grep -q '^1707 published, 1707 of them were already there' "$log"
examples/earthquakes/verify.sh
