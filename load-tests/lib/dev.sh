# What scripts share that start three nodes with `evermesh dev`, kill them, and start them again. To be sourced, after PORT is set and from the
# project's folder. Sets EVERMESH, DATA (ends with the script), and with every start: TOOK (milliseconds), DEV and NODES (process ids).

die() { echo "$*" >&2; exit 1; }
now_ms() { date +%s%3N; }

TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
if [[ -z ${EVERMESH:-} ]]; then
    cargo build --locked --release --bin evermesh || exit 1
    EVERMESH=$TARGET/release/evermesh
fi
[[ $("$EVERMESH" --version) ]] || die "$EVERMESH does not run"
mkdir -p "$TARGET"
DATA=$(mktemp -d "$TARGET/load-test-XXXXXX")
[[ $(stat -f -c %T "$DATA") != tmpfs ]] || die "$DATA is in memory, where a sync costs nothing"
DEV='' NODES=()

stop() {
    local pid
    [[ -n $DEV ]] || return
    # Nodes may have been started since.
    mapfile -t NODES < <(pgrep -P "$DEV")
    kill -9 "$DEV" "${NODES[@]}" 2>/dev/null
    wait "$DEV" 2>/dev/null
    for pid in "${NODES[@]}"; do
        while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
    done
    DEV=''
}
trap 'stop; rm -rf "$DATA"' EXIT
trap 'exit 130' INT TERM

# ticks PID…: processor time of these processes so far, in all.
ticks() {
    local pid
    for pid; do awk '{ print $14 + $15 }' "/proc/$pid/stat"; done | awk '{ sum += $1 } END { print sum }'
}

# sockets PID…: how many these processes have open, in all.
sockets() { local pid; for pid; do find "/proc/$pid/fd" -lname 'socket:*' 2>/dev/null; done | wc -l; }

# subscribed SUBSCRIBERS SOCKETS PID…: returns when these processes have so many sockets; SUBSCRIBERS is who opens them, and writes to sub.log.
subscribed() {
    local subscribers=$1 wanted=$2
    shift 2
    until (($(sockets "$@") >= wanted)); do
        kill -0 "$subscribers" 2>/dev/null || { tail -3 "$DATA/sub.log" >&2; die "the subscribers did not stay"; }
        sleep 0.1
    done
}

url() { echo "http://127.0.0.1:$((PORT + $1))"; }

# metric NODE NAME: of one node.
metric() { curl -s "$(url "$1")/metrics" | awk -v name="$2" '$1 == name { print $2 }'; }
# metrics NAME: summed over the nodes.
metrics() { local node; for node in 0 1 2; do metric $node "$1"; done | awk '{ sum += $1 } END { printf "%.0f", sum }'; }
# elected: leaderships that were lost and won. The first events wake a stream that nobody used since it was made.
elected() { for node in 0 1 2; do curl -s "$(url $node)/metrics" | awk '/^evermesh_elections_won_total{cause="(evidence|timer)"}/ { sum += $2 } END { print sum }'; done | awk '{ sum += $1 } END { print sum }'; }

# start: returns when every node is ready.
start() {
    local begin node
    begin=$(now_ms)
    "$EVERMESH" dev --base-port "$PORT" --data "$DATA/data" >>"$DATA/log" 2>&1 &
    DEV=$!
    for node in 0 1 2; do
        until curl -sf -o /dev/null "$(url $node)/readyz"; do
            kill -0 "$DEV" 2>/dev/null || { tail -5 "$DATA/log" >&2; die "the cluster did not start"; }
            sleep 0.05
        done
    done
    TOOK=$(($(now_ms) - begin))
    mapfile -t NODES < <(pgrep -P "$DEV")
}

# about COMMAND: where and what this was.
about() {
    echo "machine: $(nproc) cores, $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo), Linux $(uname -r)"
    echo "commit:  $(git describe --always --dirty 2>/dev/null), $("$EVERMESH" --version), load before $(cut -d' ' -f1 /proc/loadavg)"
    echo "command: $1"
    echo
}
