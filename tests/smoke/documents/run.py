#!/usr/bin/env python3
"""run.py EVERMESH FOLDER NODE NODE NODE: runs the commands of the README and of docs/, and compares what they print with what is shown.

- A command is a line with a prompt in a `console` block. After `$` it is for a cluster as `evermesh dev` starts one: here these three nodes, whose
  data is in FOLDER/evermesh-data. After `n1$` to `n4$` it is for one of four hosts, 10.0.0.1 to 10.0.0.4: here addresses of the loopback network.
- Commands run in FOLDER, in which everything of the project is found under its name. `stand-ins.sh` is what they meet instead of ssh and the like.
- A command must succeed, unless the answer that is shown is an error. The lines shown must be among those printed, in that order: `…` stands for
  anything, and a number for any number.
- One that stays (`curl -N`, `evermesh sub` without a limit) is ended after three seconds, and must have printed something.
- A `js` block that prints is run by Node, as a module whose client is the one in web/; it has three seconds to print something.
- Blocks in other languages are not run; they are counted and named.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

from parse import ROOT, Block, Command, blocks, commands, documents

STAY_SECONDS = 3
COMMAND_SECONDS = 90
# `evermesh dev` is what runs already; the README starts it like this.
ALREADY_RUNS = "cargo run --release -- dev"
STAND_INS = Path(__file__).with_name("stand-ins.sh")


def main() -> int:
    evermesh, folder, *nodes = sys.argv[1:]
    world = World(Path(evermesh).resolve(), Path(folder).resolve(), nodes)
    ran, failed, not_run = 0, 0, []
    try:
        for document in documents():
            for block in blocks(document.read_text())[0]:
                if block.language == "js" and any("console.log" in line for line in block.lines):
                    ran += 1
                    failed += not world.run_script(document, block)
                    continue
                if block.language != "console":
                    not_run.append(f"{document.relative_to(ROOT)}:{block.line} ({block.language or 'no language'})")
                    continue
                for command in commands(document, block):
                    ran += 1
                    failed += not world.run(command)
    finally:
        world.end()
    print(f"{ran} commands and scripts of {len(documents())} documents, {failed} failed")
    print(f"not run, {len(not_run)} blocks that are no commands: {', '.join(not_run)}")
    return failed != 0 or ran == 0


class World:
    def __init__(self, evermesh: Path, folder: Path, nodes: list[str]) -> None:
        self.folder, self.nodes, self.hosts = folder, nodes, folder / "hosts"
        # A network of its own for each run, so that the ports of the documents are free.
        self.network = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}"
        for entry in ROOT.iterdir():
            if entry.name not in ("target", "evermesh-data", ".git"):
                (folder / entry.name).symlink_to(entry)
        for host in ("n1", "n2", "n3", "n4"):
            for path in ("var/lib/evermesh", "etc/evermesh"):
                (self.hosts / host / path).mkdir(parents=True)
        self.environment = {
            **os.environ,
            "EVERMESH": str(evermesh),
            "HOSTS": str(self.hosts),
            "NETWORK": self.network,
            "NODES": ",".join(nodes),
            "BASH_ENV": str(STAND_INS),
        }

    def run(self, command: Command) -> bool:
        if command.text == ALREADY_RUNS:
            return True
        stays = " -N" in command.text or (command.text.startswith("evermesh sub ") and "--limit" not in command.text)
        expects_error = any(re.search(r'^HTTP/1.1 [45]|"status":[45]', line) for line in command.shown)
        servers = ",".join(self.nodes) if command.host is None else ",".join(f"http://{self.network}.{n}:4700" for n in (1, 2, 4))
        environment = {**self.environment, "HOST": command.host or "", "EVERMESH_SERVER": servers}
        environment["CURL_FAIL"] = "" if expects_error else "--fail-with-body"
        code, out, err = self.execute(["bash", "-c", self.here(command.text)], environment, STAY_SECONDS if stays else COMMAND_SECONDS)
        if stays:
            wrong = None if out.strip() else "printed nothing"
        elif code is None:
            wrong = f"had not ended after {COMMAND_SECONDS} s"
        else:
            wrong = f"ended with {code}" if code else missing(command.shown, out)
        return self.told(command.document, command.line, f"{command.host or ''}$ {command.text}", wrong, out + err)

    def run_script(self, document: Path, block: Block) -> bool:
        text = self.here("\n".join(block.lines))
        text = re.sub(r'"http://[^"]*/evermesh\.js"', json.dumps((ROOT / "web/client/evermesh.js").as_uri()), text)
        # Node 20 has both behind these flags, later ones have at least the first anyway.
        node = ["node", "--no-warnings", "--experimental-websocket", "--experimental-eventsource", "--input-type=module", "--eval", text]
        _, out, err = self.execute(node, self.environment, STAY_SECONDS)
        return self.told(document, block.line, text, None if out.strip() and not err.strip() else "printed nothing, or an error", out + err)

    def told(self, document: Path, line: int, what: str, wrong: str | None, printed: str) -> bool:
        where = f"{document.relative_to(ROOT)}:{line}"
        print(f"{where}: {wrong}\n{what}\n{printed[-4000:]}" if wrong else f"ok {where} {what.splitlines()[0][:100]}", flush=True)
        return wrong is None

    def here(self, text: str) -> str:
        for number, node in enumerate(self.nodes, 1):
            text = text.replace(f"127.0.0.1:470{number}", node.removeprefix("http://"))
        return text.replace("10.0.0.", f"{self.network}.")

    def execute(self, command: list[str], environment: dict[str, str], seconds: int) -> tuple[int | None, str, str]:
        process = subprocess.Popen(
            command, cwd=self.folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        try:
            out, err = process.communicate(timeout=seconds)
            return process.returncode, out, err
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                out, err = process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
            return None, out, err

    def end(self) -> None:
        """Ends the hosts' nodes: what a document started, it need not stop."""
        for file in self.hosts.glob("*/pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass


def missing(shown: list[str], printed: str) -> str | None:
    """The first shown line that was not printed, in order."""
    lines = iter(plain(line) for line in printed.splitlines())
    for line in shown:
        if not plain(line) or line.strip() == "…":
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in plain(line).split("…")))
        if not any(pattern.fullmatch(found) for found in lines):
            return f"did not print, in this order: {line}"
    return None


def plain(line: str) -> str:
    """Without what differs from run to run: numbers, ids, and how wide a column is."""
    line = re.sub(r"\b[0-9a-f]{16,32}\b", "0", line)
    line = re.sub(r"\d+(\.\d+)?", "0", line)
    return re.sub(r"\s+", " ", line).strip()


if __name__ == "__main__":
    sys.exit(main())
