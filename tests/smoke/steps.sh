# The steps of ./test, in the order they run. Each is a function step_NAME that fails when something is wrong.

step_formatting() { "$CARGO" fmt --all --check; }

step_clippy() { "$CARGO" clippy --locked --workspace --all-targets -- -D warnings; }

step_tests() {
    local log=$SMOKE/cargo-test.log rc=0
    "$CARGO" test --locked --workspace 2>&1 | tee "$log" || rc=$?
    # shellcheck disable=SC2046
    count $(awk '/^test result:/ { gsub(/;/, ""); for (i = 1; i < NF; i++) { if ($(i+1) == "passed") p += $i; if ($(i+1) == "failed") f += $i } }
        END { print p + 0, f + 0 }' "$log")
    return "$rc"
}

# The browser client, with sockets and a clock that the tests hold in their hands; its package, types and weight; what the console
# computes.
step_web() {
    local log=$SMOKE/web.log rc=0
    node --test --test-reporter=tap web/client/tests/*.test.js web/console/*.test.js >"$log" 2>&1 || rc=$?
    grep -E '^ *not ok|^# (pass|fail) |bytes gzipped' "$log"
    count_tap "$log"
    ((rc == 0)) || cat "$log"
    return "$rc"
}

# The client and the console in Debian's Chromium, each on a cluster of its own, one after the other.
step_browser() {
    local log=$SMOKE/browser.tap rc=0
    # Node 20 has its WebSocket behind this flag, later ones have it anyway.
    EVERMESH=$EVERMESH node --experimental-websocket --no-warnings --test --test-concurrency=1 \
        --test-reporter=tap --test-reporter-destination="$log" --test-reporter=spec --test-reporter-destination=stdout tests/browser/*.test.js || rc=$?
    count_tap "$log"
    return "$rc"
}

# count_tap FILE: what node's test runner wrote.
count_tap() { count "$(awk '/^# pass /{n=$3} END{print n+0}' "$1")" "$(awk '/^# fail /{n=$3} END{print n+0}' "$1")"; }

step_build() { "$CARGO" build --locked --release --bin evermesh; }

# The README and docs/: every command as it stands there, then every link and name, and the systemd unit.
step_readme() { on_kept_data readme documents evermesh-data; }

documents() {
    local folder=${1%/evermesh-data} rc=0
    python3 tests/smoke/documents/run.py "$EVERMESH" "$folder" "${NODES[@]}" || rc=1
    python3 tests/smoke/documents/check.py "$EVERMESH" "${NODES[0]}" || rc=1
    check_unit "$folder" || rc=1
    check_container_file "$folder/context" || rc=1
    return "$rc"
}

# systemd looks whether the program is there: this one is.
check_unit() {
    sed "s|/usr/local/bin/evermesh|$EVERMESH|" deploy/evermesh.service >"$1/evermesh.service"
    systemd-analyze verify "$1/evermesh.service" && say "systemd takes the unit"
}

# What the container file copies is a project that cargo understands. (Building the image needs a registry, and is not done here.)
check_container_file() {
    local path
    for path in $(sed -n 's/^COPY \([^-].*\) [^ ]*$/\1/p' deploy/Containerfile); do
        mkdir -p "$(dirname "$1/$path")" && cp -r "$path" "$1/$path" || return
    done
    (cd "$1" && "$CARGO" metadata --no-deps --offline --locked --format-version 1 >/dev/null) && say "cargo takes what the container file copies"
}

# A cluster of its own: schemathesis creates, purges and deletes what it likes. The two calls that take a node away for good are
# left to the tests that know what to expect afterwards.
step_contract() {
    start_cluster contract || return
    schemathesis run "${NODES[0]}/openapi.json" --url "${NODES[0]}" --checks all --max-examples "${MAX_EXAMPLES:-20}" --seed 1 \
        --request-timeout 30 --generation-database none --no-color --continue-on-failure \
        --exclude-path-regex '/v1/cluster/nodes/' &&
        tests/smoke/still-well.sh "${NODES[@]}"
}

# The OpenAPI and the AsyncAPI document, by the rules of their own linters.
step_documents() { node tests/lint/lint.js; }

# Every example of examples/clients, through a proxy that loses answers and cuts connections.
step_clients() {
    local log=$SMOKE/clients.log rc=0
    start_cluster clients || return
    tests/clients/run.sh "${NODES[@]}" 2>&1 | tee "$log" || rc=$?
    count "$(grep -c '^ok ' "$log")" "$(grep -c '^not ok ' "$log")"
    return "$rc"
}

step_load() {
    start_cluster load || return
    local IFS=,
    env NODES="${NODES[*]}" load-tests/smoke
}

step_earthquakes() {
    start_cluster earthquakes || return
    tests/smoke/earthquakes.sh "${NODES[@]}"
}

step_leader_killed() {
    start_cluster leader-killed && leader_killed
}

# on_kept_data NAME COMMAND [FOLDER]: a cluster whose data outlives its processes, and the command with the data's folder (of this name).
on_kept_data() {
    local place data rc=0
    place=$(mktemp -d) || return
    data=$place${3:+/$3}
    { start_cluster "$1" --data "$data" && "$2" "$data"; } || rc=$?
    stop_cluster
    rm -rf "$place"
    return "$rc"
}

step_restart() { on_kept_data restart restart_all; }

# The failover test that is part of the product: leaders moved and ended under load. Its exit code says whether anything was lost,
# doubled, out of order or failed.
step_drill() { on_kept_data drill drill; }

drill() { "$EVERMESH" drill --server "$(IFS=,; echo "${NODES[*]}")" --data "$1" --kill leader --yes --rounds 3; }

# A node dies for good under load, and a new one takes its place with one command.
step_node_replaced() { on_kept_data node-replaced node_replaced; }

# A cluster of real processes is broken for a minute in ways that a seed decides, and everything that clients were told is checked;
# then once more with another seed each time, on disks that lose what was not synced. The run prints the command that repeats it.
step_faults() {
    local processes=kill,pause,cut,stop,rolling,transfer,drain,join,replace disks=kill,power,slow,eio,clock,cut,delay,oneway
    tests/faults/run --minutes "${FAULT_MINUTES:-1}" --seed 1 --faults "$processes" &&
        tests/faults/run --minutes "${FAULT_MINUTES:-1}" --faults "$disks"
}
