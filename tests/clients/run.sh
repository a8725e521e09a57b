#!/usr/bin/env bash
# run.sh NODE NODE NODE: runs every example of examples/clients on a stream of its own, through a proxy that loses answers and cuts
# connections (flaky.js) and beside a node that is not there. Each has to print just what it published, once and in order, and the
# stream has to hold just that. The last line counts: "N examples, N failed".
set -uo pipefail
cd "$(dirname "$0")/../.."
nodes=("$@")
examples=examples/clients
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ran=0 wrong=0

orders() { for n in {1..10}; do echo "$n {\"order\":$n}"; done; }

last_seq() { curl --silent --fail --max-time 10 "${nodes[0]}/v1/streams/$1" | sed -n 's/.*"last_seq": *\([0-9]*\).*/\1/p'; }

# check NAME STREAM EVENTS WANTED COMMAND...: WANTED is the file that the output has to be.
check() {
    local name=$1 stream=$2 events=$3 wanted=$4 began=$SECONDS rc=0 why=
    shift 4
    coproc FLAKY { exec node tests/clients/flaky.js "${nodes[@]}"; }
    local flaky=$FLAKY_PID input=${FLAKY[1]} EVERMESH_SERVER
    read -r EVERMESH_SERVER <&"${FLAKY[0]}"
    # Nobody listens on this port.
    export EVERMESH_SERVER=http://127.0.0.1:9,$EVERMESH_SERVER
    timeout 60 "$@" "$stream" >"$work/out" 2>"$work/err" </dev/null || rc=$?
    exec {input}>&-
    wait "$flaky"
    ((rc == 0)) || why="it ended with $rc"
    diff "$wanted" "$work/out" >"$work/diff" || why="it printed something else"
    [[ $(last_seq "$stream") == "$events" ]] || why="the stream has $(last_seq "$stream") events instead of $events"
    ran=$((ran + 1))
    if [[ -z $why ]]; then
        echo "ok $name, $((SECONDS - began)) s"
    else
        wrong=$((wrong + 1))
        echo "not ok $name: $why"
        tail -n 20 "$work/diff" "$work/err"
    fi
}

orders >"$work/orders"
check "curl" clients-curl 10 "$work/orders" "$examples/curl.sh"
check "Python, httpx" clients-httpx 10 "$work/orders" python3 "$examples/python/over_http.py"
check "Python, websockets" clients-websockets 10 "$work/orders" python3 "$examples/python/over_websocket.py"
check "Node, fetch" clients-fetch 10 "$work/orders" node "$examples/javascript/with-fetch.js"
check "Node, the client" clients-own 10 "$work/orders" node "$examples/javascript/with-client.js"
check "a page, EventSource" clients-page 10 "$work/orders" node tests/clients/page.js "$examples/browser/eventsource.html"
check "a page, WebSocket" clients-page 10 "$work/orders" node tests/clients/page.js "$examples/browser/websocket.html"
for n in 1 2 3 4; do echo "$n Größe „$n“, 50%41 {\"order\":$n}"; done >"$work/cloudevents"
check "CloudEvents, Python" clients-cloudevents-python 4 "$work/cloudevents" python3 "$examples/python/with_cloudevents.py"
for n in 1 2 3 4; do echo "$n order-$n {\"order\":$n}"; done >"$work/cloudevents"
check "CloudEvents, JavaScript" clients-cloudevents-javascript 4 "$work/cloudevents" node "$examples/javascript/with-cloudevents.js"
echo "$ran examples, $wrong failed"
((wrong == 0))
