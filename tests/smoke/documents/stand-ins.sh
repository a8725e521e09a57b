# What a command of the documents meets when a test runs it; bash reads this first (BASH_ENV).
#
# EVERMESH is the program, HOST the host whose prompt it is (empty: this machine), HOSTS a folder with a root for each host, NETWORK the first three
# numbers of the hosts' addresses: host n2 is NETWORK.2. `ssh` and `scp` are stand-ins; everything else is the real thing.

# An answer that is an error ends curl with one, unless the document shows the error or has curl look itself.
curl() {
    local fail=$CURL_FAIL
    [[ " $* " == *" -sf "* ]] && fail=
    # shellcheck disable=SC2086
    command curl --silent --show-error --max-time 30 $fail "$@"
}

evermesh() {
    case $1 in
        serve) start_node "$@" ;;
        *) "$EVERMESH" "$@" || return ;;
    esac
    # Whoever types needs longer for the next command than a node for its start.
    # shellcheck disable=SC2086
    [[ "$1 ${2:-}" != "dev start" ]] || until_ready ${NODES//,/ }
}

# Where a path of host HOST is on this machine.
here() { printf '%s' "$1" | sed "s#^/\(var/lib\|etc\)/evermesh#$HOSTS/$HOST/\1/evermesh#"; }

# A node of host HOST, in the background; ready when it says so.
start_node() {
    local args=() arg
    for arg; do args+=("$(here "$arg")"); done
    setsid "$EVERMESH" "${args[@]}" >>"$HOSTS/$HOST/log" 2>&1 </dev/null &
    echo $! >"$HOSTS/$HOST/pid"
    until_ready "http://$NETWORK.${HOST#n}:4700" || { tail -n 20 "$HOSTS/$HOST/log" >&2; return 1; }
}

until_ready() {
    local url deadline=$((SECONDS + 60))
    for url; do
        until command curl --silent --fail --max-time 2 --output /dev/null "$url/readyz"; do
            ((SECONDS < deadline)) || { echo "$url is not ready" >&2; return 1; }
            sleep 0.1
        done
    done
}

pidof() { cat "$HOSTS/$HOST/pid"; }

# scp -p FILE ADDRESS:FILE
scp() {
    local from=$2 to=${3#*:} address=${3%%:*}
    from=$(here "$from")
    HOST=n${address##*.}
    cp -p "$from" "$(here "$to")"
}

# ssh ADDRESS systemctl restart evermesh: as the unit in deploy/ starts it.
ssh() {
    [[ "${*:2}" == "systemctl restart evermesh" ]] || { echo "there is no stand-in for: ssh $*" >&2; return 1; }
    local HOST=n${1##*.} pid line
    pid=$(pidof)
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    line=$(sed -n 's/^ExecStart=[^ ]*evermesh //p' deploy/evermesh.service)
    # shellcheck disable=SC2086
    start_node $line
}
