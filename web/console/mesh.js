// The mesh as a picture. Each ring is a node: its bright part is the share of all streams that it leads. Lines are the connections
// as both ends see them, and sparks on them are events published through the node that they come from.

import { mesh, rates } from "./cluster.js";
import { compact, count, lasting, plural, shorten } from "./format.js";
import { Cell, html, useCell, useEffect, useRef, useSize } from "./view.js";

/** The stream that is looked at: { name, leader, replicas: [{ node, lag, … }] }. */
export const spotlight = new Cell(null);

const PULSE_MS = 420;
const PULSE_LASTS_MS = 900;
const PULSES_MAX = 14;

export function Mesh({ selected, onSelect }) {
  const box = useRef();
  const size = useSize(box);
  const { nodes, links, catalogLeader } = useCell(mesh);
  const light = useCell(spotlight);
  const places = size.width > 0 ? layout(nodes, size) : null;
  useEffect(() => (places ? pulses(box.current, places) : undefined), [places?.key]);
  return html`<div class="mesh" ref=${box}>
    ${
      places &&
      html`<svg width=${size.width} height=${size.height} role="group" aria-label="The nodes of the mesh">
        <g>${links.map((link) => html`<${Link} key=${`${link.a} ${link.b}`} link=${link} places=${places} light=${light} />`)}</g>
        <g>
          ${nodes.map(
            (node) =>
              html`<${Node} key=${node.name} node=${node} place=${places.of.get(node.name)} places=${places} light=${light} total=${totalLed(nodes)}
                catalog=${node.name === catalogLeader} selected=${selected === node.name} onSelect=${onSelect} />`,
          )}
        </g>
      </svg>`
    }
  </div>`;
}

const totalLed = (nodes) => nodes.filter((node) => node.status !== "down").reduce((total, node) => total + node.streams_led, 0);

// Where the nodes are: on a circle, the first at its top; one alone in the middle, two beside each other.

function layout(nodes, { width, height }) {
  const many = nodes.length;
  const radius = Math.max(11, Math.min(many <= 3 ? 46 : many <= 6 ? 38 : many <= 12 ? 26 : 15, width / (many <= 6 ? 9.5 : 14)));
  const labelled = many <= 16;
  const room = radius + (labelled ? 44 : 14);
  const orbit = { x: Math.min(width / 2 - Math.max(radius + 22, 58), height * 0.62), y: height / 2 - room };
  const lift = many === 3 ? (height / 2 - room) * 0.14 : 0;
  const of = new Map(
    nodes.map((node, at) => {
      const angle = many === 2 ? Math.PI * (1 - at) : -Math.PI / 2 + (2 * Math.PI * at) / many;
      const away = many === 1 ? 0 : 1;
      return [node.name, { x: width / 2 + away * orbit.x * Math.cos(angle), y: height / 2 - 8 + lift + away * orbit.y * Math.sin(angle) }];
    }),
  );
  return { of, radius, labelled, key: `${width} ${height} ${nodes.map((node) => node.name).join(" ")}` };
}

function Link({ link, places, light }) {
  const [a, b] = [places.of.get(link.a), places.of.get(link.b)];
  if (!a || !b) return null;
  const length = Math.hypot(b.x - a.x, b.y - a.y) || 1;
  const [dx, dy] = [((b.x - a.x) / length) * (places.radius + 6), ((b.y - a.y) / length) * (places.radius + 6)];
  const carries = light && [link.a, link.b].includes(light.leader) && [link.a, link.b].every((name) => light.replicas.some((replica) => replica.node === name));
  const tone = light ? (carries ? "lit" : "dim") : "";
  return html`<line class="link ${link.status} ${tone}" x1=${a.x + dx} y1=${a.y + dy} x2=${b.x - dx} y2=${b.y - dy}>
    <title>${`${link.a} – ${link.b}: ${LINK_SAYS[link.status]}`}</title>
  </line>`;
}

const LINK_SAYS = { up: "connected", half: "only one of the two reaches the other", cut: "neither reaches the other", down: "no connection" };

function Node({ node, place, places, light, total, catalog, selected, onSelect }) {
  const { radius, labelled } = places;
  const replica = light?.replicas.find((each) => each.node === node.name);
  const leads = light?.leader === node.name;
  const tone = !light ? "" : leads ? "leads" : replica ? "holds" : "dim";
  const round = 2 * Math.PI * radius;
  const share = node.status === "down" || total === 0 ? 0 : node.streams_led / total;
  const choose = () => onSelect(selected ? null : node.name);
  const onKeyDown = (key) => {
    if (key.key !== "Enter" && key.key !== " ") return;
    key.preventDefault();
    choose();
  };
  return html`<g class="node ${node.status} ${tone} ${selected ? "selected" : ""}" transform=${`translate(${place.x} ${place.y})`} tabindex="0" role="button"
    data-node=${node.name} aria-pressed=${String(selected)} aria-label=${`${node.name}: ${says(node)}${catalog ? ", leads the catalog" : ""}`} onClick=${choose} onKeyDown=${onKeyDown}>
    <title>${`${node.name} · ${says(node)}`}</title>
    <circle class="halo" r=${radius + 9} />
    <circle class="ground" r=${radius} />
    <circle class="track" r=${radius} />
    <circle class="share" r=${radius} transform="rotate(-90)" stroke-dasharray=${`${share * round} ${round}`} />
    ${catalog && html`<path class="catalog" transform=${`translate(0 ${-radius - 1})`} d="M0 -6 6 0 0 6 -6 0z"><title>Leads the catalog</title></path>`}
    <text class="inside" y=${radius > 20 ? -1 : 4}>${inside(node, leads, replica)}</text>
    ${radius > 30 && html`<text class="under" y="15">${insideNote(node, leads, replica)}</text>`}
    ${labelled && html`<text class="name" y=${radius + 22}>${shorten(node.name, radius > 30 ? 20 : 12)}</text>`}
    ${labelled && html`<text class="note" y=${radius + 38}>${note(node)}</text>`}
  </g>`;
}

function inside(node, leads, replica) {
  if (node.status === "down") return "✕";
  if (leads) return "★";
  if (replica) return replica.lag ? `−${compact(replica.lag)}` : "✓";
  return compact(node.streams_led);
}

function insideNote(node, leads, replica) {
  if (node.status === "down") return "down";
  if (leads) return "leader";
  if (replica) return replica.lag ? "behind" : "holds it";
  return "leads";
}

function note(node) {
  if (node.status === "down") return `for ${lasting(Date.now() - node.since)}`;
  if (node.replicas_damaged > 0) return `${count(node.replicas_damaged)} damaged`;
  if (node.replicas_rebuilding > 0) return `${count(node.replicas_rebuilding)} rebuilding`;
  if (node.status === "draining") return "drains";
  if (node.status === "partly") return "partly cut off";
  if (node.behind > 0) return `${count(node.behind)} behind`;
  if (node.disk !== "ok") return `disk ${node.disk}`;
  return `holds ${compact(node.streams_held)}`;
}

/** A node in one line, for people who do not see the picture. */
export function says(node) {
  if (node.status === "down") return `down for ${lasting(Date.now() - node.since)}`;
  const parts = [`leads ${count(node.streams_led)} of the ${plural(node.streams_held, "stream")} that it holds`];
  if (node.status === "draining") parts.push("drains");
  if (node.status === "partly") parts.push(`cannot be reached by ${node.missing.join(", ")}`);
  if (node.behind > 0) parts.push(`${plural(node.behind, "replica")} behind`);
  if (node.replicas_damaged > 0) parts.push(`${plural(node.replicas_damaged, "replica")} damaged`);
  if (node.replicas_rebuilding > 0) parts.push(`${plural(node.replicas_rebuilding, "replica")} rebuilding`);
  if (node.disk !== "ok") parts.push(`disk ${node.disk}`);
  return parts.join(", ");
}

// Sparks: a few small elements that the compositor moves by itself, so that they cost the page nothing.

function pulses(box, places) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return undefined;
  const timer = setInterval(() => {
    if (document.hidden || !mesh.value) return;
    for (const [name, { published }] of rates.value?.nodes ?? []) {
      if (published < 0.5) continue;
      const links = mesh.value.links.filter((link) => link.status === "up" && (link.a === name || link.b === name));
      for (let spark = 0; spark < Math.min(links.length, Math.ceil(Math.log10(published + 1)), 3); spark += 1) {
        const link = links[Math.floor(Math.random() * links.length)];
        fly(box, places, name, link.a === name ? link.b : link.a);
      }
    }
  }, PULSE_MS);
  return () => {
    clearInterval(timer);
    for (const spark of box.querySelectorAll(".spark-dot")) spark.remove();
  };
}

function fly(box, places, from, to) {
  const [a, b] = [places.of.get(from), places.of.get(to)];
  if (!a || !b || box.querySelectorAll(".spark-dot").length >= PULSES_MAX) return;
  const length = Math.hypot(b.x - a.x, b.y - a.y) || 1;
  const [dx, dy] = [((b.x - a.x) / length) * places.radius, ((b.y - a.y) / length) * places.radius];
  const spark = Object.assign(document.createElement("i"), { className: "spark-dot" });
  box.append(spark);
  const at = (x, y, opacity) => ({ transform: `translate(${x}px, ${y}px)`, opacity });
  const steps = [at(a.x + dx, a.y + dy, 0), { opacity: 1, offset: 0.2 }, { opacity: 1, offset: 0.8 }, at(b.x - dx, b.y - dy, 0)];
  const flight = spark.animate(steps, { duration: PULSE_LASTS_MS, delay: Math.random() * PULSE_MS, easing: "ease-in-out", fill: "both" });
  flight.onfinish = () => spark.remove();
}
