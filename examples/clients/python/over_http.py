"""Publishes ten orders over HTTP with httpx, and follows the stream until it has read ten: python over_http.py STREAM

EVERMESH_SERVER names the nodes, with commas between them. Any of them takes any request.
"""

import itertools
import json
import os
import sys
import time

import httpx

NODES = os.environ.get("EVERMESH_SERVER", "http://127.0.0.1:4701,http://127.0.0.1:4702,http://127.0.0.1:4703").split(",")
next_node = itertools.cycle(NODES).__next__


def publish(client, stream, event_id, data):
    """Returns the event's seq. Every try has the same Event-Id, so the event is stored once, whatever became of the tries before."""
    for _ in range(20):
        try:
            answer = client.post(f"{next_node()}/v1/streams/{stream}/events", json=data, headers={"Event-Id": event_id})
            if answer.is_success:
                return answer.json()["seq"]
            if not answer.json()["retryable"]:
                raise RuntimeError(answer.json()["detail"])
        except httpx.TransportError:
            pass  # The node is gone; the next one is not.
        time.sleep(0.2)
    raise TimeoutError(f"{event_id} was not acknowledged")


def follow(client, stream, last=0):
    """Every event behind the seq `last`, and each that comes. When the connection ends, the next node goes on behind what came."""
    while True:
        try:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
            with client.stream("GET", f"{next_node()}/v1/streams/{stream}/events", headers=headers) as answer:
                if answer.is_client_error:
                    raise RuntimeError(json.loads(answer.read())["detail"])
                for message in messages(answer):
                    last = int(message.get("id", last))
                    if message.get("event") == "gap":
                        print(f"retention removed {message['data']}", file=sys.stderr)
                    elif "event" not in message:
                        yield json.loads(message["data"])
        except httpx.TransportError:
            pass
        time.sleep(0.2)


def messages(answer):
    """The server-sent events of an answer, each as its fields."""
    message = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if not line and "data" in message:
            yield message
            message = {}
        elif name:
            message[name] = value


def main(stream):
    # A comment comes every 15 s, so a connection that is silent for longer is dead.
    with httpx.Client(timeout=httpx.Timeout(20, read=40)) as client:
        for n in range(1, 11):
            publish(client, stream, f"{stream}-{n}", {"order": n})
        for event in itertools.islice(follow(client, stream), 10):
            print(event["seq"], json.dumps(event["data"], separators=(",", ":")))


if __name__ == "__main__":
    main(sys.argv[1])
