# A three-node cluster on free ports of this machine, one at a time: start_cluster, NODES, node_pid, stop_cluster.

CLUSTER_PID=
BASE_PORT=
NODES=() # the three API addresses

# start_cluster NAME [ARG...]: `evermesh dev` with the arguments given (default: --ephemeral), ready when every node says so.
start_cluster() {
    local name=$1
    shift
    (($#)) || set -- --ephemeral
    [[ -x $EVERMESH ]] || { say "$EVERMESH is not there: ./test build makes it"; return 1; }
    CLUSTER_LOG=$SMOKE/$name.log
    : >"$CLUSTER_LOG"
    free_ports || { say "no free ports found"; return 1; }
    launch_cluster "$@"
}

# launch_cluster ARG...: the same on the ports that are already chosen, for a second start.
launch_cluster() {
    local port
    NODES=()
    for port in 0 1 2; do
        NODES+=("http://127.0.0.1:$((BASE_PORT + port))")
    done
    "$EVERMESH" dev --base-port "$BASE_PORT" "$@" >>"$CLUSTER_LOG" 2>&1 </dev/null &
    CLUSTER_PID=$!
    RUNNING[$CLUSTER_PID]=1
    if ! until_true 60 cluster_ready_or_gone || process_gone "$CLUSTER_PID"; then
        say "the cluster did not start:"
        tail -n 30 "$CLUSTER_LOG"
        return 1
    fi
    say "three nodes at ${NODES[*]}"
}

cluster_ready_or_gone() {
    local node
    process_gone "$CLUSTER_PID" && return
    for node in "${NODES[@]}"; do
        node_ready "$node" || return 1
    done
}

node_ready() { curl --silent --fail --max-time 2 --output /dev/null "$1/readyz"; }

stop_cluster() {
    [[ -n $CLUSTER_PID ]] || return 0
    local pid
    for pid in "${!RUNNING[@]}"; do
        [[ $pid == "$CLUSTER_PID" ]] || end_process "$pid"
    done
    end_process "$CLUSTER_PID"
    CLUSTER_PID=
}

# free_ports: sets BASE_PORT so that three API ports and the three peer ports 100 above them are free, and one more of each.
free_ports() {
    local try port
    for ((try = 0; try < 200; try++)); do
        BASE_PORT=$((20000 + RANDOM % 10000))
        for port in 0 1 2 3 100 101 102 103; do
            port_free $((BASE_PORT + port)) || continue 2
        done
        return 0
    done
    return 1
}

port_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# node_pid URL: the process of the node that listens there, as the cluster's first lines told it.
node_pid() {
    local pid
    pid=$(sed -n "s|.* $1 .*pid \([0-9]*\).*|\1|p" "$CLUSTER_LOG" | tail -n 1)
    [[ -n $pid ]] && echo "$pid"
}

node_pids() { cat "/proc/$CLUSTER_PID/task/"*/children; }
