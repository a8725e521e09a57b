"""Publishes ten orders over a WebSocket, and follows the stream on it until it has read ten: python over_websocket.py STREAM

Publishes are sent without waiting for each other. What was not acknowledged when a connection ends is sent again, under the same
event_id, over a connection to the next node; the subscription goes on there behind the last seq.
"""

import asyncio
import itertools
import json
import os
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

NODES = os.environ.get("EVERMESH_SERVER", "http://127.0.0.1:4701,http://127.0.0.1:4702,http://127.0.0.1:4703").split(",")
SUBSCRIBE = 0


class Orders:
    def __init__(self, stream):
        self.stream = stream
        self.last = 0
        self.unanswered = {
            n: {"stream": stream, "event_id": f"{stream}-{n}", "data": {"order": n}} for n in range(1, 11)
        }

    async def run(self):
        for node in itertools.cycle(NODES):
            try:
                url = node.replace("http", "ws", 1) + "/v1/ws"
                async with connect(url, subprotocols=["evermesh.v1.json"]) as socket:
                    if await self.talk(socket):
                        return
            except (OSError, WebSocketException):
                pass
            await asyncio.sleep(random.uniform(0.05, 0.5))

    async def talk(self, socket):
        """Whether all is done; otherwise another node has to go on."""
        for n, publish in self.unanswered.items():
            await socket.send(json.dumps({"id": n, "publish": publish}))
        if not self.unanswered:
            await self.subscribe(socket)
        async for text in socket:
            frame = json.loads(text)
            if "error" in frame:
                if not frame["error"]["retryable"]:
                    raise RuntimeError(frame["error"]["detail"])
                return False
            if "ack" in frame:
                del self.unanswered[frame["id"]]
                if not self.unanswered:
                    await self.subscribe(socket)
            if "gap" in frame:
                print(f"retention removed {frame['gap']}", file=sys.stderr)
                self.last = frame["gap"]["to"]
            for event in frame.get("events", ()):
                self.last = event["seq"]
                print(event["seq"], json.dumps(event["data"], separators=(",", ":")))
            if "goaway" in frame:
                return False
            if self.last >= 10:
                return True
        return False

    async def subscribe(self, socket):
        await socket.send(json.dumps({"id": SUBSCRIBE, "subscribe": {"stream": self.stream, "from": self.last + 1}}))


asyncio.run(Orders(sys.argv[1]).run())
