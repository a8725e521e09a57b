"""Publishes CloudEvents with the official SDK in every mode, and reads each back in every mode: python with_cloudevents.py STREAM"""

import itertools
import json
import os
import sys
import time
from datetime import datetime, timezone

import httpx
from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_http_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

NODES = os.environ.get("EVERMESH_SERVER", "http://127.0.0.1:4701,http://127.0.0.1:4702,http://127.0.0.1:4703").split(",")
next_node = itertools.cycle(NODES).__next__
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def order(stream, n):
    return CloudEvent(
        {
            "id": f"{stream} {n}",
            "source": "/shop",
            "type": "orders.created",
            "subject": f"Größe „{n}“, 50%41",
            "time": datetime(2026, 11, 22, 10, 15, n, tzinfo=timezone.utc),
            "datacontenttype": "application/json",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        },
        {"order": n},
    )


def to_batch(events):
    """The SDK has no batches: one is an array of events in their JSON format."""
    body = b"[" + b",".join(JSONFormat().write(event) for event in events) + b"]"
    return HTTPMessage({"content-type": BATCH}, body)


def publish(client, stream, message):
    """A CloudEvent's id is its Event-Id: trying again is safe."""
    for _ in range(20):
        try:
            answer = client.post(f"{next_node()}/v1/streams/{stream}/events", headers=message.headers, content=message.body)
            if answer.is_success:
                return answer.json()
            if not answer.json()["retryable"]:
                raise RuntimeError(answer.json()["detail"])
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError("not acknowledged")


def read(client, path, accept):
    """The answer of whichever node gives one."""
    for _ in range(20):
        try:
            answer = client.get(next_node() + path, headers={"Accept": accept})
            if answer.is_success:
                return answer
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{path} could not be read")


def read_one(client, stream, seq, accept):
    answer = read(client, f"/v1/streams/{stream}/events/{seq}", accept)
    return from_http_event(HTTPMessage(dict(answer.headers), answer.content))


def read_batch(client, stream):
    return [JSONFormat().read(None, json.dumps(event)) for event in read(client, f"/v1/streams/{stream}/events", BATCH).json()]


def main(stream):
    binary, structured, *batch = events = [order(stream, n) for n in range(1, 5)]
    with httpx.Client(timeout=20) as client:
        publish(client, stream, to_binary_event(binary))
        publish(client, stream, to_structured_event(structured))
        publish(client, stream, to_batch(batch))
        # An id that is known is not stored again, in whichever mode it comes.
        assert publish(client, stream, to_structured_event(binary))["duplicate"]
        for accept in ("*/*", STRUCTURED):
            for seq, event in enumerate(events, 1):
                same(read_one(client, stream, seq, accept), event)
        for read_back, event in zip(read_batch(client, stream), events, strict=True):
            same(read_back, event)
            print(read_back.get_id().removeprefix(f"{stream} "), read_back.get_subject(), json.dumps(read_back.get_data(), separators=(",", ":")))


def same(read_back, event):
    assert read_back.get_attributes() == event.get_attributes(), read_back.get_attributes()
    assert read_back.get_data() == event.get_data(), read_back.get_data()


if __name__ == "__main__":
    main(sys.argv[1])
