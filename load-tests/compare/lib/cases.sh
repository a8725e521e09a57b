# The cases. In each round the systems take turns, so that what the machine does beside hits all of them; every figure's counterpart is
# in the same round.

# measure CASE ROUND NAME VERB ARGUMENTS…
measure() {
    local case=$1 round=$2 name=$3 verb=$4
    shift 4
    "$COMPARE" "$verb" --out "$RAW" --case "$case" --round "$round" --name "$name" "$@" || {
        printf '    %-28s failed\n' "$name"
        return 1
    }
    # What a system does behind its answers (compaction, flushing) is not to fall into the next one's time.
    sleep 0.5
}

# create SYSTEM ADDRESSES STREAM: a new stream; prints the number of its leader.
create() {
    "$COMPARE" ask create --system "$1" --at "$2" --stream "$3" && "$COMPARE" ask leader --system "$1" --at "$2" --stream "$3"
}

# follower ADDRESSES LEADER: the address of one that does not lead.
follower() { nth "$1" $((($2 + 1) % 3)); }

# a: one publisher, one event after another, through a node that does not lead.
case_a() {
    local round leader failed=0 stream time=(--seconds "$SECONDS_EACH")
    up evermesh nats etcd axum
    for ((round = 1; round <= ROUNDS; round++)); do
        stream=a$round
        measure a "$round" "fdatasync" latency --system disk --at "$WORK/data" "${time[@]}" || failed=1
        leader=$(create evermesh "$EVERMESH_AT" "$stream") || return 1
        measure a "$round" "evermesh" latency --system evermesh --at "$(follower "$EVERMESH_AT" "$leader")" --stream "$stream" \
            --pids "$(pids "${EVERMESH_NODES[@]}")" "${time[@]}" || failed=1
        measure a "$round" "evermesh, at the leader" latency --system evermesh --at "$(nth "$EVERMESH_AT" "$leader")" --stream "$stream" \
            --pids "$(pids "${EVERMESH_NODES[@]}")" "${time[@]}" || failed=1
        leader=$("$COMPARE" ask leader --system etcd --at "$ETCD_AT") || return 1
        measure a "$round" "etcd, gRPC" latency --system etcd --at "$(follower "$ETCD_AT" "$leader")" \
            --pids "$(pids "${ETCD_NODES[@]}")" "${time[@]}" || failed=1
        measure a "$round" "etcd, JSON gateway" latency --system etcd-http --at "$(follower "$ETCD_AT" "$leader")" \
            --pids "$(pids "${ETCD_NODES[@]}")" "${time[@]}" || failed=1
        leader=$(create nats "$NATS_AT" "$stream") || return 1
        measure a "$round" "NATS JetStream" latency --system nats --at "$(follower "$NATS_AT" "$leader")" --stream "$stream" \
            --pids "$(pids "${NATS_NODES[@]}")" "${time[@]}" || failed=1
        measure a "$round" "bare axum" latency --system axum --at "$AXUM_AT" --pids "$(pids axum)" "${time[@]}" || failed=1
    done
    return $failed
}

# b: single events over HTTP, 64 connections over three nodes.
case_b() {
    local round failed=0 time=(--seconds "$SECONDS_EACH" --wrk "${PROGRAMS[wrk]}" --script "$HERE/post.lua")
    up evermesh etcd axum
    for ((round = 1; round <= ROUNDS; round++)); do
        create evermesh "$EVERMESH_AT" "b$round" >/dev/null || return 1
        measure b "$round" "evermesh" wrk --system evermesh --at "$EVERMESH_AT" --stream "b$round" --pids "$(pids "${EVERMESH_NODES[@]}")" "${time[@]}" || failed=1
        measure b "$round" "bare axum" wrk --system axum --at "$AXUM_AT" --pids "$(pids axum)" "${time[@]}" || failed=1
        measure b "$round" "etcd, gRPC" latency --system etcd --at "$ETCD_AT" --connections 63 --seconds "$SECONDS_EACH" \
            --pids "$(pids "${ETCD_NODES[@]}")" || failed=1
        measure b "$round" "etcd, JSON gateway" wrk --system etcd-http --at "$ETCD_AT" --pids "$(pids "${ETCD_NODES[@]}")" "${time[@]}" || failed=1
    done
    return $failed
}

# c: 2,048 publishes under way.
case_c() {
    local round leader failed=0 stream system name nodes pids time=(--seconds "$SECONDS_EACH" --in-flight 2048)
    up evermesh nats
    for ((round = 1; round <= ROUNDS; round++)); do
        for system in evermesh nats; do
            stream=c$round
            if [[ $system == evermesh ]]; then name=evermesh nodes=$EVERMESH_AT pids=$(pids "${EVERMESH_NODES[@]}"); fi
            if [[ $system == nats ]]; then name="NATS JetStream" nodes=$NATS_AT pids=$(pids "${NATS_NODES[@]}"); fi
            leader=$(create "$system" "$nodes" "$stream") || return 1
            measure c "$round" "$name, 3 connections" pipeline --system "$system" --at "$nodes" --stream "$stream" --pids "$pids" "${time[@]}" || failed=1
            measure c "$round" "$name, 1 at the leader" pipeline --system "$system" --at "$(nth "$nodes" "$leader")" --stream "$stream" --pids "$pids" "${time[@]}" || failed=1
            measure c "$round" "$name, 1 elsewhere" pipeline --system "$system" --at "$(follower "$nodes" "$leader")" --stream "$stream" --pids "$pids" "${time[@]}" || failed=1
        done
        create evermesh "$EVERMESH_AT" "$stream-batches" >/dev/null || return 1
        measure c "$round" "evermesh, batches of 64" pipeline --system evermesh --at "$EVERMESH_AT" --stream "$stream-batches" --batch 64 \
            --pids "$(pids "${EVERMESH_NODES[@]}")" "${time[@]}" || failed=1
    done
    return $failed
}

# fanouts CASE ROUND ARGUMENTS…: the same subscribers at each system.
fanouts() {
    local case=$1 round=$2 failed=0 stream subscribers=$3
    shift 3
    stream=$case$round-$subscribers
    create evermesh "$EVERMESH_AT" "$stream" >/dev/null || return 1
    measure "$case" "$round" "evermesh" fanout --system evermesh --at "$EVERMESH_AT" --stream "$stream" --subscribers "$subscribers" \
        --pids "$(pids "${EVERMESH_NODES[@]}")" "$@" || failed=1
    create evermesh "$EVERMESH_AT" "$stream-plain" >/dev/null || return 1
    measure "$case" "$round" "evermesh, an event a frame" fanout --system evermesh --plain --at "$EVERMESH_AT" --stream "$stream-plain" --subscribers "$subscribers" \
        --pids "$(pids "${EVERMESH_NODES[@]}")" "$@" || failed=1
    measure "$case" "$round" "nchan" fanout --system nchan --at "$NCHAN_AT" --stream "$stream" --subscribers "$subscribers" --pids "$(pids nchan)" "$@" || failed=1
    create nats "$NATS_AT" "$stream" >/dev/null || return 1
    measure "$case" "$round" "NATS, not from the log" fanout --system nats --at "$NATS_AT" --stream "$stream" --subscribers "$subscribers" \
        --pids "$(pids "${NATS_NODES[@]}")" "$@" || failed=1
    return $failed
}

# d: as many deliveries as can be made. d1 has 100 subscribers, d2 1,000.
case_d() {
    local round failed=0
    up evermesh nchan nats
    for ((round = 1; round <= ROUNDS; round++)); do
        fanouts d1 "$round" 100 --seconds "$SECONDS_EACH" || failed=1
        fanouts d2 "$round" 1000 --seconds "$SECONDS_EACH" || failed=1
    done
    return $failed
}

# e: 1,000 subscribers, 50 events a second.
case_e() {
    local round failed=0
    up evermesh nchan nats
    for ((round = 1; round <= ROUNDS; round++)); do
        fanouts e "$round" 1000 --rate 50 --seconds "$SECONDS_EACH" || failed=1
    done
    return $failed
}

# f: a full stream, read from its start.
case_f() {
    local round system nodes failed=0
    up evermesh nats
    for system in evermesh nats; do
        if [[ $system == evermesh ]]; then nodes=$EVERMESH_AT; else nodes=$NATS_AT; fi
        create "$system" "$nodes" f >/dev/null || return 1
        say "    filling $system with $EVENTS events"
        "$COMPARE" catchup --fill --out "$RAW" --case f --round 0 --name fill --system "$system" --at "$nodes" --stream f --events "$EVENTS" || return 1
    done
    for ((round = 1; round <= ROUNDS; round++)); do
        measure f "$round" "evermesh" catchup --system evermesh --at "$EVERMESH_AT" --stream f --events "$EVENTS" --pids "$(pids "${EVERMESH_NODES[@]}")" || failed=1
        measure f "$round" "NATS ordered consumer" catchup --system nats --at "$NATS_AT" --stream f --events "$EVENTS" --pids "$(pids "${NATS_NODES[@]}")" || failed=1
    done
    return $failed
}

# g: the leader is killed under two publishers at the other nodes, and started again for the next round.
case_g() {
    local round system nodes leader stream name seconds failed=0
    up evermesh nats etcd
    # NATS takes up to 9 s until somebody stands for election.
    seconds=$((SECONDS_EACH > 14 ? SECONDS_EACH : 14))
    for ((round = 1; round <= ROUNDS; round++)); do
        for system in evermesh nats etcd; do
            case $system in
                evermesh) name="evermesh" nodes=$EVERMESH_AT ;;
                nats) name="NATS JetStream" nodes=$NATS_AT ;;
                etcd) name="etcd, gRPC" nodes=$ETCD_AT ;;
            esac
            stream=g$round
            leader=$(create "$system" "$nodes" "$stream") || return 1
            measure g "$round" "$name" gap --system "$system" --at "$(without "$nodes" "$leader")" --stream "$stream" \
                --kill "${PIDS[$system$((leader + 1))]}" --seconds "$seconds" || failed=1
            "${system}_node" "$leader"
            sleep 3
        done
    done
    return $failed
}
