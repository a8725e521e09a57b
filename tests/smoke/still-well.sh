#!/usr/bin/env bash
# still-well.sh NODE...: after rough treatment every node is still ready, and takes and gives an event.
set -uo pipefail
wrong=0
for node in "$@"; do
    curl --silent --fail --max-time 5 --output /dev/null "$node/readyz" || { echo "$node is not ready"; wrong=1; }
    curl --silent --fail-with-body --max-time 10 --output /dev/null "$node/v1/streams/still-well/events" -H 'Content-Type: text/plain' -d "hello" ||
        { echo "$node takes no event"; wrong=1; }
done
exit "$wrong"
