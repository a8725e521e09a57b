// Asking the cluster: whichever node answers, the one that served this page first.

const PATIENCE_MS = 5000;

let nodes = [location.origin];
let turn = 0;

/** What the service said no with. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || `status ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** The address of the node that is asked at present. */
export const node = () => nodes[turn % nodes.length];

/** The nodes to go to when that one is gone. */
export function learn(urls) {
  nodes = [...new Set([node(), location.origin, ...urls])];
  turn = 0;
}

/**
 * The JSON answer to a request; whoever does not answer is left for the next node.
 * What changes something may be sent twice that way: it has to be the same twice, as an event with an id is.
 */
export async function ask(path, options = {}) {
  let last;
  for (let tries = 0; tries < nodes.length; tries += 1) {
    try {
      return await askNode(node(), path, options);
    } catch (error) {
      if (error instanceof Refusal && error.status < 500) throw error;
      last = error;
    }
    turn += 1;
  }
  throw last;
}

/** The same of one node, whatever it says. */
export async function askNode(url, path, { method, headers, body, patienceMs = PATIENCE_MS } = {}) {
  const answer = await fetch(url + path, { method, headers, body, signal: AbortSignal.timeout(patienceMs) });
  if (!answer.ok) throw new Refusal(answer.status, await answer.json().catch(() => null));
  if (answer.status === 204) return null;
  return answer.headers.get("Content-Type")?.includes("json") ? answer.json() : answer.text();
}

export const post = (path, body) => ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const streamPath = (name) => `/v1/streams/${encodeURIComponent(name)}`;
