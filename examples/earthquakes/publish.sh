#!/usr/bin/env bash
# Publishes the earthquakes to three nodes in turn: hundreds as batches, what is left one event a request.
# Each event's id is its USGS id, so that running this again adds nothing. Needs bash and curl.
#
#   EVERMESH_NODES="http://127.0.0.1:4701 …"   the nodes (default: those of `evermesh dev`)
#   STREAM=earthquakes                          where to
#   BATCH=100                                   events a batch; 1 publishes every event by itself
#   PAUSE=0                                     seconds between two requests, to watch them arrive
set -euo pipefail
cd "$(dirname "$0")"

read -ra nodes <<<"${EVERMESH_NODES:-http://127.0.0.1:4701 http://127.0.0.1:4702 http://127.0.0.1:4703}"
stream=${STREAM:-earthquakes}
batch=${BATCH:-100}
pause=${PAUSE:-0}
file=earthquakes.ndjson
total=$(($(wc -l <$file)))
turn=0 published=0 duplicates=0

next_node() {
    node=${nodes[turn % ${#nodes[@]}]}
    turn=$((turn + 1))
}

# send PATH ARG...: one request to the next node; its answer is in $answer. Safe to repeat, since every event has its id.
send() {
    local path=$1
    shift
    next_node
    answer=$(curl --silent --show-error --fail-with-body --max-time 30 --retry 3 "$node$path" "$@") ||
        { printf '\n%s did not take it: %s\n' "$node" "$answer" >&2; exit 1; }
    [[ $pause == 0 ]] || sleep "$pause"
}

progress() {
    published=$((published + $1))
    duplicates=$((duplicates + $2))
    [[ ! -t 2 ]] || printf '\r%d of %d' "$published" "$total" >&2
}

publish_batch() { # FIRST LAST, as line numbers
    send "/v1/streams/$stream/batch" -H 'Content-Type: application/x-ndjson' --data-binary @- < <(sed -n "$1,$2p" $file)
    [[ $answer =~ \"duplicates\":\ *([0-9]+) ]]
    progress $(($2 - $1 + 1)) "${BASH_REMATCH[1]}"
}

# A line is {"id":…,"subject":…,"content_type":…,"data":EVENT}: headers and body are cut out of it.
publish_single() {
    local line=$1
    [[ $line =~ ^\{\"id\":\"([^\"]+)\",\"subject\":\"([^\"]+)\",\"content_type\":\"([^\"]+)\",\"data\":(.*)\}$ ]]
    send "/v1/streams/$stream/events" -H "Event-Id: ${BASH_REMATCH[1]}" -H "Event-Subject: ${BASH_REMATCH[2]}" \
        -H "Content-Type: ${BASH_REMATCH[3]}" --data-binary @- < <(printf '%s' "${BASH_REMATCH[4]}")
    if [[ $answer =~ \"duplicate\":\ *true ]]; then progress 1 1; else progress 1 0; fi
}

# The window is as long as a window can be: for a day, a repetition is recognised.
send "/v1/streams/$stream" -X PUT -H 'Content-Type: application/json' -d '{"dedup_window":"24h","description":"USGS: all earthquakes of one week in 2018"}'

first=1
while ((batch > 1 && first + batch - 1 <= total)); do
    publish_batch "$first" $((first + batch - 1))
    first=$((first + batch))
done
while read -r line; do
    publish_single "$line"
done < <(sed -n "$first,\$p" $file)

[[ ! -t 2 ]] || printf '\r' >&2
echo "$published published, $duplicates of them were already there and are not there twice"
