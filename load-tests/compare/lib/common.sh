# What every part of the comparison uses: saying, waiting, ports, and the processes that it started.

say() { printf '%s\n' "$*"; }
die() { printf 'compare: %s\n' "$*" >&2; exit 1; }

# name -> process id of what runs now.
declare -A PIDS=()

# start NAME COMMAND…: in the background, with its output in a log of its own; it ends with this script even if that is killed.
start() {
    local name=$1
    shift
    setpriv --pdeathsig TERM "$@" >>"$WORK/logs/$name.log" 2>&1 </dev/null &
    PIDS[$name]=$!
    # No word from the shell when a case kills it.
    disown $!
}

stop() {
    local name=$1 pid=${PIDS[$1]:-} tries
    unset "PIDS[$name]"
    [[ -n $pid ]] || return 0
    kill "$pid" 2>/dev/null || return 0
    for ((tries = 0; tries < 100; tries++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null
    return 0
}

stop_all() {
    local name
    for name in "${!PIDS[@]}"; do kill "${PIDS[$name]}" 2>/dev/null; done
    for name in "${!PIDS[@]}"; do stop "$name"; done
}

# pids NAME…: with commas between them.
pids() {
    local IFS=, name found=()
    for name in "$@"; do [[ -n ${PIDS[$name]:-} ]] && found+=("${PIDS[$name]}"); done
    printf '%s' "${found[*]}"
}

# wait_for WHAT SECONDS COMMAND…: until the command succeeds.
wait_for() {
    local what=$1 until=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || die "$what did not come up: see $WORK/logs"
        sleep 0.1
    done
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The first of a hundred ports in a row of which none that is used here is taken.
free_base() {
    local base=$1 port taken
    for ((; base < 65000; base += 100)); do
        taken=
        for port in 0 1 2 10 11 12 20 21 22 30 31 32 50 51 52 60 61 62 70 80; do
            if listening $((base + port)); then taken=1; break; fi
        done
        [[ -n $taken ]] || { printf '%s' "$base"; return; }
    done
    die "no free ports"
}

# at FROM COUNT: addresses of so many ports, with commas between them.
at() {
    local IFS=, number list=()
    for ((number = 0; number < $2; number++)); do list+=("127.0.0.1:$((BASE + $1 + number))"); done
    printf '%s' "${list[*]}"
}

# nth LIST NUMBER, without LIST NUMBER: one of a list with commas, and all but one.
nth() { cut -d, -f$(($2 + 1)) <<<"$1"; }
without() { cut -d, -f$(($2 + 1)) --complement <<<"$1"; }
