// SPDX-License-Identifier: Apache-2.0

import { byID, shape, fill, plain } from "./dom.js";
import { state, choose, choosePair, clearSelection, onChange, verdictClass, verdictWord } from "./state.js";

// The graph: nodes on a circle in the order of their names, edges as curves with an arrow at their end.

const circle = { x: 400, y: 360, gap: 14 };
// Above as many nodes labels turn outwards, so that they do not cover each other.
const turned = 16;
// maxDrawn is how many edges are drawn at once; of more, only those of the source.
const maxDrawn = 900;

const svg = byID("graph");
const layers = { edges: shape("g"), nodes: shape("g") };
svg.append(layers.edges, layers.nodes);
let drawn = null; // the graph whose nodes are drawn
let focused = ""; // the ID of the node that has, or would get, the focus
let opener = () => {};

// onOpen sets what opens and closes a namespace.
export function onOpen(action) {
  opener = action;
}

function places(n) {
  return Array.from({ length: n }, (_, i) => {
    const angle = (2 * Math.PI * i) / Math.max(n, 1) - Math.PI / 2;
    return { x: circle.x * Math.cos(angle), y: circle.y * Math.sin(angle), cos: Math.cos(angle), sin: Math.sin(angle) };
  });
}

const round = (n) => Math.round(n * 10) / 10;

// curve is the path of an edge: bent towards the middle, and to its right, so that the way back is beside it.
function curve(a, b, size) {
  if (a === b) {
    const out = 62, side = 32;
    const left = { x: a.x + a.cos * out - a.sin * side, y: a.y + a.sin * out + a.cos * side };
    const right = { x: a.x + a.cos * out + a.sin * side, y: a.y + a.sin * out - a.cos * side };
    return `M${round(a.x)} ${round(a.y)}C${round(left.x)} ${round(left.y)} ${round(right.x)} ${round(right.y)} ` +
      `${round(a.x + a.cos * size)} ${round(a.y + a.sin * size)}`;
  }
  const dx = b.x - a.x, dy = b.y - a.y, length = Math.hypot(dx, dy) || 1;
  const bend = Math.min(60, length * 0.12);
  const c = { x: (a.x + b.x) * 0.3 - (dy / length) * bend, y: (a.y + b.y) * 0.3 + (dx / length) * bend };
  const back = Math.hypot(b.x - c.x, b.y - c.y) || 1;
  const ux = (b.x - c.x) / back, uy = (b.y - c.y) / back;
  const end = { x: b.x - ux * (size + 3), y: b.y - uy * (size + 3) };
  const wing = (s) => `${round(end.x - ux * 11 + s * uy * 5)} ${round(end.y - uy * 11 - s * ux * 5)}`;
  return `M${round(a.x)} ${round(a.y)}Q${round(c.x)} ${round(c.y)} ${round(end.x)} ${round(end.y)}` +
    `M${wing(1)}L${round(end.x)} ${round(end.y)}L${wing(-1)}`;
}

const radius = (n) => (n.kind === "namespace" ? 17 : 12);

function title(n) {
  if (n.kind === "host") {
    return `${n.name}, outside of the cluster`;
  }
  const isolated = (count) => (count === n.pods ? "all" : count === 0 ? "none" : `${count}`);
  const of = n.kind === "namespace" ? `namespace ${n.name}, ${n.workloads} workloads, ${n.pods} pods` :
    `${n.name}, ${n.pods} pods`;
  return `${of}; isolated: ingress ${isolated(n.ingress)}, egress ${isolated(n.egress)}`;
}

// placeOf is where the label of a node is.
function placeOf(n, at) {
  const gap = radius(n) + circle.gap, left = at.cos < -0.02, middle = Math.abs(at.cos) <= 0.02;
  if (state.graph.nodes.length > turned) {
    const angle = (Math.atan2(at.sin, at.cos) * 180) / Math.PI;
    return { transform: `rotate(${round(left ? angle + 180 : angle)})`, x: left ? -gap : gap, y: 0,
      "text-anchor": left ? "end" : "start" };
  }
  return { x: round(middle ? 0 : at.cos * gap), y: round(at.sin * gap * (middle ? 1.5 : 1)),
    "text-anchor": middle ? "middle" : left ? "end" : "start" };
}

function drawNode(n, at) {
  const name = n.name.length > 26 ? n.name.slice(0, 25) + "…" : n.name;
  const label = n.kind === "namespace" ? `${name} (${n.workloads})` : n.pods > 1 ? `${name} ×${n.pods}` : name;
  const g = shape("g", { class: "node " + n.kind + (n.ingress ? " ingress" : ""), "data-id": n.id, role: "button",
    tabindex: "-1", "aria-label": title(n), transform: `translate(${round(at.x)} ${round(at.y)})` },
  shape("circle", { r: radius(n) }));
  if (n.egress) {
    g.append(shape("circle", { r: 5, class: "egress" }));
  }
  g.append(shape("title", {}, title(n)),
    shape("text", placeOf(n, at), label));
  g.addEventListener("click", () => {
    focused = n.id;
    choose(n);
    focus();
  });
  g.addEventListener("dblclick", () => opener(n));
  return g;
}

function wanted(e) {
  const kind = verdictClass(e);
  return state.show === "all" || kind === "some" || kind === "audited" || (kind === "denied") === (state.show === "denied");
}

function drawEdges(at) {
  const { nodes, edges } = state.graph;
  const isPicked = (e) => state.source?.id === nodes[e.s].id && state.destination?.id === nodes[e.d].id;
  let shown = edges.filter((e) => wanted(e) || isPicked(e));
  const near = (e) => !!state.source && [nodes[e.s].id, nodes[e.d].id].includes(state.source.id);
  const left = shown.length > maxDrawn;
  if (left) {
    shown = shown.filter(near);
  }
  const list = [];
  for (const e of shown) {
    const d = curve(at[e.s], at[e.d], radius(nodes[e.d]));
    const picked = isPicked(e);
    const hit = shape("path", { class: "hit", d, "data-from": nodes[e.s].id, "data-to": nodes[e.d].id },
      shape("title", {}, `${nodes[e.s].name} to ${nodes[e.d].name}: ${verdictWord(e)}`));
    hit.addEventListener("click", () => choosePair(nodes[e.s], nodes[e.d]));
    list.push(hit, shape("path", { class: "edge " + verdictClass(e) + (near(e) ? " near" : "") + (picked ? " picked" : ""), d }));
  }
  svg.classList.toggle("faded", !!state.source);
  return { list, count: shown.length, left };
}

// draw draws the edges anew, and the nodes if they are others: a node that is replaced between two clicks
// gets no double click in some browsers.
export function draw() {
  const { nodes, total, first } = state.graph;
  const at = places(nodes.length);
  const edges = drawEdges(at);
  const hadFocus = svg.contains(document.activeElement);
  layers.edges.replaceChildren(...edges.list);
  if (drawn !== state.graph) {
    drawn = state.graph;
    layers.nodes.replaceChildren(...nodes.map((n, i) => drawNode(n, at[i])));
  }
  mark();
  if (!nodes.some((n) => n.id === focused)) {
    focused = nodes[0]?.id || "";
  }
  rove();
  if (hadFocus) {
    focus();
  }
  const part = total > nodes.length ? `${first + 1} to ${first + nodes.length} of ${total}` : `${total}`;
  const more = edges.left ? "; there are many: choose a node to see its own" : "";
  fill(byID("shown"), `${part} shown, ${edges.count} edges${more}`);
}

// is reports whether an element is that of the node with an ID.
const is = (g, id) => g.dataset.id === plain(id ?? "");

function groups() {
  return [...svg.querySelectorAll(".node")];
}

function mark() {
  for (const g of groups()) {
    g.classList.toggle("source", is(g, state.source?.id));
    g.classList.toggle("destination", is(g, state.destination?.id));
    g.setAttribute("aria-pressed", String(g.classList.contains("source") || g.classList.contains("destination")));
  }
}

// rove makes the focused node the one that Tab reaches.
function rove() {
  for (const g of groups()) {
    g.setAttribute("tabindex", is(g, focused) ? "0" : "-1");
  }
}

// focus brings the focus to a node.
export function focus(id = focused) {
  focused = id;
  rove();
  groups().find((g) => is(g, id))?.focus();
}

function move(step) {
  const list = state.graph.nodes;
  const i = list.findIndex((n) => n.id === focused);
  focus(list[(i + step + list.length) % list.length]?.id);
}

svg.addEventListener("keydown", (event) => {
  const node = state.graph.nodes.find((n) => n.id === focused);
  if (!node || event.ctrlKey || event.altKey || event.metaKey) {
    return;
  }
  const actions = { ArrowRight: () => move(1), ArrowDown: () => move(1), ArrowLeft: () => move(-1), ArrowUp: () => move(-1),
    Home: () => focus(state.graph.nodes[0].id), End: () => focus(state.graph.nodes.at(-1).id), Enter: () => choose(node),
    " ": () => choose(node), o: () => opener(node), x: () => choosePair(state.destination, state.source),
    Escape: clearSelection };
  const action = actions[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
});

onChange(draw);
