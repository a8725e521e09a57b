#!/usr/bin/env bash
# Reads the earthquakes back from every node and compares: with each other byte for byte (seq, time and all), and with what was
# published, in the same order. Needs bash and curl; the stream must hold nothing but one run of publish.sh.
set -euo pipefail
cd "$(dirname "$0")"

read -ra nodes <<<"${EVERMESH_NODES:-http://127.0.0.1:4701 http://127.0.0.1:4702 http://127.0.0.1:4703}"
stream=${STREAM:-earthquakes}
total=$(($(wc -l <earthquakes.ndjson)))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The last event is asked for first: a node whose replica is behind waits for it.
read_back() { # NODE FILE
    local from
    curl --silent --show-error --fail-with-body --max-time 30 --output /dev/null "$1/v1/streams/$stream/events/$total"
    for ((from = 1; from <= total; from += 1000)); do
        curl --silent --show-error --fail-with-body --max-time 30 "$1/v1/streams/$stream/events?from=$from&limit=1000" -H 'Accept: application/x-ndjson'
    done >"$2"
}

# What was published and what is read, both as "id subject event" lines.
published() { sed -E 's/^\{"id":"([^"]+)","subject":"([^"]+)","content_type":"[^"]+","data":(.*)\}$/\1 \2 \3/' earthquakes.ndjson; }
stored() { sed -E 's/^\{"seq":.*"subject":"([^"]+)","id":"([^"]+)",.*"data":(.*)\}$/\2 \1 \3/' "$1"; }

published >"$work/published"
for i in "${!nodes[@]}"; do
    read_back "${nodes[i]}" "$work/$i"
    stored "$work/$i" >"$work/stored"
    cmp "$work/0" "$work/$i" || { echo "${nodes[i]} and ${nodes[0]} differ" >&2; exit 1; }
    cmp "$work/published" "$work/stored" || { echo "${nodes[i]} does not hold what was published" >&2; exit 1; }
    echo "${nodes[i]}: $(wc -l <"$work/$i") events, $(wc -c <"$work/$i") bytes, $(cksum <"$work/$i" | cut -d' ' -f1)"
done
echo "the same on every node, byte for byte, in the order of publishing"
