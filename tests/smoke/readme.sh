#!/usr/bin/env bash
# readme.sh EVERMESH NODE NODE NODE: runs every `$ curl …` and `$ evermesh …` line of the console blocks in README.md and docs/, on
# these nodes instead of ports 4701–4703. A line with -N is a live one: it may be cut off after three seconds, but must have printed
# something.
set -uo pipefail
cd "$(dirname "$0")/../.."
EVERMESH=$1
shift
EVERMESH_SERVER=$(IFS=,; echo "$*")
export EVERMESH_SERVER

# The commands, one a line: continuation lines joined, the prompt taken off.
commands() {
    awk '/^```console/ { on = 1; next } /^```/ { on = 0 }
        on && (/^\$ / || more) { sub(/^\$ /, ""); more = sub(/ *\\$/, " "); printf "%s%s", $0, more ? "" : "\n" }' README.md docs/*.md |
        sed 's/^ *//' | grep -E '^(curl|evermesh) '
}

# What the README's `curl` becomes: an HTTP error is a failure.
curl() { command curl --silent --show-error --fail-with-body --max-time 10 "$@"; }

evermesh() { "$EVERMESH" "$@" </dev/null; }

run() {
    local command=$1 output rc=0
    if [[ $command == *" -N"* ]]; then
        output=$(eval "${command/#curl/curl --max-time 3}" 2>/dev/null) || rc=$?
        ((rc == 28)) && [[ -n $output ]] && rc=0
    else
        output=$(eval "$command" 2>&1) || rc=$?
    fi
    printf '$ %s\n%s\n' "$command" "$(head -c 600 <<<"$output")"
    return "$rc"
}

wrong=0 ran=0
while read -r command; do
    for i in 1 2 3; do
        node=${!i}
        command=${command//http:\/\/127.0.0.1:470$i/$node}
        command=${command//http:\/\/localhost:470$i/$node}
    done
    ran=$((ran + 1))
    run "$command" || { echo "   ^ failed"; wrong=$((wrong + 1)); }
done < <(commands)
echo "$ran lines of the README and docs/, $wrong failed"
((ran > 0 && wrong == 0))
