"""check-stream.py STREAM ACKS NODE...: is everything that was acknowledged on every node, once, in one order?

ACKS has a line "id status seconds body" for each acknowledged publish, the body being the answer of the service.
"""

import json
import sys
import urllib.error
import urllib.request

PAGE = 1000


def read(node, stream, last_seq):
    """Every event of the stream up to last_seq, as the node serves them."""
    # The node waits for its own replica before it serves a seq that was acknowledged elsewhere.
    urllib.request.urlopen(f"{node}/v1/streams/{stream}/events/{last_seq}", timeout=30).read()
    events, cursor = [], 1
    while cursor <= last_seq:
        with urllib.request.urlopen(f"{node}/v1/streams/{stream}/events?from={cursor}&limit={PAGE}", timeout=30) as answer:
            page = json.load(answer)["events"]
        if not page:
            break
        events += page
        cursor = page[-1]["seq"] + 1
    return events


def complaints(events, acknowledged):
    seqs = [event["seq"] for event in events]
    if seqs != list(range(1, len(seqs) + 1)):
        yield f"the seqs are not 1, 2, 3 …: {seqs[:5]} … {seqs[-5:]}"
    ids = [event.get("id") for event in events]
    if len(set(ids)) != len(ids):
        yield f"{len(ids) - len(set(ids))} events are there twice"
    at = {event.get("id"): event["seq"] for event in events}
    for event_id, seq in acknowledged.items():
        if at.get(event_id) != seq:
            yield f"{event_id} was acknowledged as seq {seq} and is {at.get(event_id, 'not there')}"


def main(stream, acks, nodes):
    acknowledged = {}
    with open(acks, encoding="utf-8") as lines:
        for line in lines:
            event_id, _status, _seconds, body = line.rstrip("\n").split(" ", 3)
            acknowledged[event_id] = json.loads(body)["seq"]
    last_seq = max(acknowledged.values())
    copies = {node: read(node, stream, last_seq) for node in nodes}
    wrong = [f"{node}: {what}" for node, events in copies.items() for what in complaints(events, acknowledged)]
    shortest = min(len(events) for events in copies.values())
    first = next(iter(copies.values()))
    wrong += [f"{node}: not the same events" for node, events in copies.items() if events[:shortest] != first[:shortest]]
    print("\n".join(wrong[:20]) or f"{len(acknowledged)} acknowledged events are on each of {len(nodes)} nodes, once, in the same order")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
    except urllib.error.URLError as error:
        sys.exit(f"{getattr(error, 'url', 'a node')}: {error}")
