#!/usr/bin/env bash
# Publishes ten orders with curl, and follows the stream until it has read ten: ./curl.sh STREAM
# EVERMESH_SERVER names the nodes, with commas between them. Any of them takes any request.
set -euo pipefail
stream=$1
IFS=, read -ra nodes <<<"${EVERMESH_SERVER:-http://127.0.0.1:4701,http://127.0.0.1:4702,http://127.0.0.1:4703}"
turn=0

next_node() {
    node=${nodes[turn % ${#nodes[@]}]}
    turn=$((turn + 1))
}

# publish ID JSON: curl itself tries again after a 503 or 504, and a node that is gone is left for the next. Every try has the same
# Event-Id, so the event is stored once, whatever became of the tries before.
publish() {
    local try
    for try in 1 2 3 4 5; do
        next_node
        curl --silent --fail --output /dev/null --max-time 20 --retry 3 "$node/v1/streams/$stream/events" \
            -H "Event-Id: $1" -H 'Content-Type: application/json' -d "$2" && return
    done
    echo "$1 was not acknowledged" >&2
    return 1
}

# follow LAST COUNT: server-sent events behind the seq LAST. When the connection ends, the next node goes on behind what came.
follow() {
    local last=$1 end=$(($1 + $2)) line id data
    while ((last < end)); do
        next_node
        while read -r line; do
            case $line in
                "id: "*) id=${line#id: } ;;
                "data: {\"seq\":"*)
                    last=$id
                    data=${line##*\"data\":}
                    echo "$last ${data%\}}"
                    ;;
                "data: {\"from\":"*) last=$id && echo "retention removed ${line#data: }" >&2 ;;
            esac
        done < <(curl --silent --no-buffer "$node/v1/streams/$stream/events?limit=$((end - last))" -H 'Accept: text/event-stream' -H "Last-Event-ID: $last")
    done
}

for n in {1..10}; do
    publish "$stream-$n" "{\"order\":$n}"
done
follow 0 10
