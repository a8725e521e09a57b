# kill -9 under load: of one leader, and of everything at once. Needs a started cluster (cluster.sh).

# One publish after the other through a node that does not lead; in the middle the leader's process is killed. No request may
# fail, nothing may be missing or be there twice, and the killed node catches up when it is started again.
leader_killed() {
    local stream=leader-killed acks=$SMOKE/leader-killed.acks events=${EVENTS:-300} leader through victim i
    : >"$acks"
    create_stream "${NODES[0]}" "$stream" || return
    leader=$(leader_index "${NODES[0]}" "$stream") || { say "the stream has no leader"; return 1; }
    through=${NODES[$(((leader + 1) % 3))]}
    victim=$(node_pid "${NODES[leader]}") || { say "no process found for ${NODES[leader]}"; return 1; }
    remember_command "$victim"
    for ((i = 1; i <= events; i++)); do
        ((i == events / 3)) && kill -KILL "$victim" && say "killed the leader, n$((leader + 1)), process $victim, after $((i - 1)) events"
        publish_one "$through" "$stream" "k-$i" "$acks" || { say "event $i was not acknowledged: $(tail -n 1 "$acks")"; return 1; }
    done
    say "$events events acknowledged through $through; the slowest took $(awk '{ if ($3 > m) m = $3 } END { print m }' "$acks") s"
    start_again || return
    until_true 60 node_ready "${NODES[leader]}" || { say "the killed node did not come back"; return 1; }
    python3 tests/smoke/check-stream.py "$stream" "$acks" "${NODES[@]}"
}

# All processes of the cluster are killed at once, with publishes under way; started again, every acknowledged event is there.
restart_all() {
    local data=$1 stream=restart acks=$SMOKE/restart.acks publisher
    : >"$acks"
    create_stream "${NODES[0]}" "$stream" || return
    publish_until_it_fails "${NODES[1]}" "$stream" "$acks" &
    publisher=$!
    RUNNING[$publisher]=1
    until_true 30 acknowledged_at_least "$acks" 200 || { say "200 events were not acknowledged in 30 s"; return 1; }
    # shellcheck disable=SC2046
    kill -KILL "$CLUSTER_PID" $(node_pids)
    wait "$CLUSTER_PID" "$publisher" 2>/dev/null
    unset "RUNNING[$CLUSTER_PID]" "RUNNING[$publisher]"
    grep ' 201 ' "$acks" >"$acks.kept"
    say "killed all processes after $(wc -l <"$acks.kept") acknowledged events"
    launch_cluster --data "$data" && python3 tests/smoke/check-stream.py "$stream" "$acks.kept" "${NODES[@]}"
}

# n3 is killed and never comes back; a fourth node joins in its place and under its name. Publishes go on all the while, and at the
# end every acknowledged event is on the new node as on the others.
node_replaced() {
    local data=$1 stream=node-replaced acks=$SMOKE/node-replaced.acks url=http://127.0.0.1:$((BASE_PORT + 3)) i new
    : >"$acks"
    create_stream "${NODES[0]}" "$stream" || return
    for ((i = 1; i <= 60; i++)); do
        publish_one "${NODES[i % 3]}" "$stream" "k-$i" "$acks" || { say "event $i was not acknowledged: $(tail -n 1 "$acks")"; return 1; }
    done
    "$EVERMESH" dev kill n3 --data "$data" || return
    "$EVERMESH" serve --data "$data/new" --name n3 --secret-file "$data/secret" --listen "${url#http://}" --replace n3 --log-format json \
        --peer-listen "127.0.0.1:$((BASE_PORT + 103))" --join "127.0.0.1:$((BASE_PORT + 101)),127.0.0.1:$((BASE_PORT + 100))" >>"$CLUSTER_LOG" 2>&1 </dev/null &
    new=$!
    RUNNING[$new]=1
    for ((i = 61; i <= 200; i++)); do
        publish_one "${NODES[i % 2]}" "$stream" "k-$i" "$acks" || { say "event $i was not acknowledged: $(tail -n 1 "$acks")"; return 1; }
    done
    until_true 60 node_ready "$url" || { say "the new node is not ready"; return 1; }
    until_true 60 holds_replica "${NODES[0]}" "$stream" || { say "the new node has no replica that is up to date"; return 1; }
    say "n3 is another node now, process $new, with a replica that is up to date"
    python3 tests/smoke/check-stream.py "$stream" "$acks" "${NODES[0]}" "${NODES[1]}" "$url"
}

# Whether n3 is a replica that has everything.
holds_replica() {
    curl --silent --fail --max-time 10 "$1/v1/streams/$2" | grep -q '"node": *"n3","leader": *[a-z]*,"lag": *0'
}

create_stream() {
    curl --silent --show-error --fail-with-body --max-time 20 --output /dev/null -X PUT "$1/v1/streams/$2" -H 'Content-Type: application/json' -d '{"replicas":3}'
}

# Prints 0, 1 or 2; `dev` names its nodes n1, n2, n3.
leader_index() {
    local name
    name=$(curl --silent --fail --max-time 10 "$1/v1/streams/$2" | sed -n 's/.*"leader": *"n\([1-3]\)".*/\1/p')
    [[ -n $name ]] && echo $((name - 1))
}

# Adds one line "id status seconds body" to the file of acknowledgements; fails unless the status is 201.
publish_one() {
    local node=$1 stream=$2 id=$3 acks=$4 answer
    answer=$(curl --silent --max-time 20 -w '\n%{http_code} %{time_total}' "$node/v1/streams/$stream/events" -H "Event-Id: $id" -H 'Content-Type: application/json' -d "{\"id\":\"$id\"}")
    printf '%s %s %s\n' "$id" "${answer##*$'\n'}" "$(head -n 1 <<<"$answer")" >>"$acks"
    [[ ${answer##*$'\n'} == 201\ * ]]
}

publish_until_it_fails() {
    local i=1
    while publish_one "$1" "$2" "r-$i" "$3"; do i=$((i + 1)); done
}

acknowledged_at_least() { (($(wc -l <"$1") >= $2)); }

# remember_command PID: how the process was started, to start it once more: without --bootstrap and --join, since a node that was
# there before finds its way back by what is in its data.
remember_command() {
    mapfile -d '' -t COMMAND <"/proc/$1/cmdline"
    mapfile -d '' -t ENVIRONMENT <"/proc/$1/environ"
    DIRECTORY=$(readlink "/proc/$1/cwd")
    local kept=() i
    for ((i = 0; i < ${#COMMAND[@]}; i++)); do
        case ${COMMAND[i]} in
            --bootstrap | --join=*) ;;
            --join) i=$((i + 1)) ;;
            *) kept+=("${COMMAND[i]}") ;;
        esac
    done
    COMMAND=("${kept[@]}")
}

start_again() {
    local input
    say "starting it again: ${COMMAND[*]}"
    # The node's input stays open as long as this script lives: `dev` ends its nodes by closing it.
    exec {input}<> <(:)
    env -i --chdir="$DIRECTORY" "${ENVIRONMENT[@]}" "${COMMAND[@]}" <&"$input" >>"$CLUSTER_LOG" 2>&1 &
    RUNNING[$!]=1
}
