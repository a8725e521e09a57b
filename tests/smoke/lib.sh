# What the steps of ./test share: counting, installing, processes. Sourced by ./test; needs bash and nothing else to begin with.

CARGO=${CARGO:-cargo}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
EVERMESH=$CARGO_TARGET_DIR/release/evermesh
SMOKE=$CARGO_TARGET_DIR/smoke
VENV=$PWD/.venv
PATH=$VENV/bin:$PATH

PASSED=0
FAILED=0
FAILURES=()
STEP_NUMBER=0
STEP_COUNT=0
STARTED=$SECONDS
declare -A RUNNING=() # the process ids that this script started and has not yet seen end

source tests/smoke/install.sh
source tests/smoke/cluster.sh
source tests/smoke/faults.sh
source tests/smoke/steps.sh

say() { printf '%s\n' "$*"; }
die() { say "$*" >&2; exit 2; }

begin() {
    STEP_COUNT=$1
    mkdir -p "$SMOKE"
}

# run_step NAME: runs the function step_NAME. A step counts as one, unless it counts for itself with `count`.
run_step() {
    local name=$1 from=$SECONDS passed=$PASSED failed=$FAILED rc=0
    STEP_NUMBER=$((STEP_NUMBER + 1))
    say ""
    say "== $STEP_NUMBER/$STEP_COUNT $name"
    "step_${name//-/_}" || rc=$?
    if ((PASSED == passed && FAILED == failed)); then
        if ((rc == 0)); then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)); fi
    elif ((rc != 0 && FAILED == failed)); then
        FAILED=$((FAILED + 1))
    fi
    if ((FAILED > failed)); then
        FAILURES+=("$name")
        say "-- $name FAILED after $((SECONDS - from)) s; again: ./test $name"
    else
        say "-- $name ok, $((SECONDS - from)) s"
    fi
    stop_cluster
}

# count PASSED FAILED: what a test runner reported.
count() {
    PASSED=$((PASSED + $1))
    FAILED=$((FAILED + $2))
}

finish() {
    say ""
    ((${#FAILURES[@]})) && say "failed: ${FAILURES[*]}; the logs are in $SMOKE"
    say "$((SECONDS - STARTED)) s"
    say "$PASSED passed, $FAILED failed"
    ((FAILED == 0 && PASSED > 0))
    exit
}

# until_true SECONDS COMMAND...: tries again every 50 ms until the command succeeds; fails when the time is over.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

end_all() {
    local pid
    stop_cluster
    for pid in "${!RUNNING[@]}"; do
        end_process "$pid"
    done
}

# end_process PID: asks it to stop, waits, and only then insists.
end_process() {
    local pid=$1
    kill -TERM "$pid" 2>/dev/null
    until_true 20 process_gone "$pid" || kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    unset "RUNNING[$pid]"
}

process_gone() {
    local state
    [[ -r /proc/$1/stat ]] || return 0
    read -r _ _ state _ <"/proc/$1/stat" 2>/dev/null || return 0
    [[ $state == Z ]]
}
