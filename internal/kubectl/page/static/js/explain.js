// SPDX-License-Identifier: Apache-2.0

import { byID, button, element, fill, say } from "./dom.js";
import { latest } from "./api.js";
import { state, choosePair, onChange, verdictWord, verdictClass } from "./state.js";

// What is chosen, and why: the texts are those of kubectl podwall explain.

const ask = latest();
let opener = () => {};
let shown = ""; // what the answer is about

export function onOpen(action) {
  opener = action;
}

const verdictName = (allowed) => (allowed ? "allowed" : "denied");

function showAnswer(v, withVerdict = true) {
  const box = element("section", { class: withVerdict ? verdictName(v.allowed) : "" }, element("h2", {}, v.title));
  if (withVerdict) {
    box.append(element("p", { class: "verdict" }, verdictName(v.allowed)));
  }
  box.append(element("pre", {}, v.text.trimEnd()));
  fill(byID("answer"), box);
}

// attempt asks and shows; a question without an answer is said in the place of one. It returns false
// if there was another question meanwhile.
async function attempt(name, values, show) {
  fill(byID("answer"), element("p", { class: "quiet" }, "…"));
  try {
    const v = await ask(name, values);
    if (v) {
      await show(v);
    }
    return v !== null;
  } catch (e) {
    fill(byID("answer"), element("p", { class: "v-denied" }, e.message));
    return true;
  }
}

// explain shows why a flow is allowed or denied. Without a port it is in the destination.
export function explain(src, dst, port = "") {
  shown = "";
  return attempt("explain", port ? { src, dst, port } : { src, dst }, (v) => showAnswer(v));
}

async function explainPair() {
  const { source, destination, port } = state;
  await attempt("pairs", { src: source.id, dst: destination.id, port }, async (v) => {
    if (v.pairs.length === 0) {
      fill(byID("answer"), element("p", {}, "There is no flow: a pod always reaches itself, and ends without an " +
        "address of one family do not meet."));
      return;
    }
    const first = v.pairs[0];
    const list = v.total > 1 ? pairList(v) : null;
    const current = await attempt("explain", { src: first.source, dst: first.destination, port }, (a) => showAnswer(a));
    if (list && current) {
      byID("answer").prepend(list);
    }
  });
}

// pairList are the workloads of an edge between namespaces.
function pairList(v) {
  const rows = v.pairs.map((p) => element("tr", {}, element("td", {}, p.source), element("td", {}, p.destination),
    element("td", {}, button(p.verdict === "some" ? `some (${p.allowed} of ${p.flows})` : p.verdict,
      () => explain(p.source, p.destination, state.port), { class: p.verdict === "allowed" ? "v-allowed" :
        p.verdict === "denied" ? "v-denied" : "v-some" }))));
  const more = v.total > v.pairs.length ? `, of which ${v.pairs.length} are shown` : "";
  return element("details", { class: "pairs" }, element("summary", {}, `${v.total} pairs of workloads${more}`),
    element("table", {}, element("tbody", {}, ...rows)));
}

function showChosen() {
  const { source, destination } = state;
  if (!source) {
    fill(byID("chosen"), element("p", { class: "quiet" }, "Choose an edge, or two nodes one after the other."));
    return;
  }
  const parts = [element("p", { id: "pair" }, element("b", {}, source.name), " to ",
    element("b", {}, destination ? destination.name : "…"), ` on ${state.port}`)];
  const bar = element("p", { class: "bar" });
  for (const n of new Set([source, destination])) {
    if (n && n.kind !== "host") {
      const namespace = n.kind === "namespace" ? n.name : n.namespace;
      bar.append(button(`${n.kind === "namespace" ? "Open" : "Close"} ${namespace}`, () => opener(n)));
    }
  }
  if (destination) {
    bar.append(button("Swap", () => choosePair(destination, source)));
  }
  bar.append(button("Clear the selection", () => choosePair(null, null)));
  fill(byID("chosen"), ...parts, bar);
}

// showPeers lists all other nodes with both verdicts: the edges, and the missing ones, for the keyboard.
function showPeers() {
  const { source, graph } = state;
  const at = graph.nodes.findIndex((n) => n.id === source?.id);
  if (at < 0) {
    fill(byID("peers"));
    return;
  }
  const find = (s, d) => graph.edges.find((e) => e.s === s && e.d === d);
  const cell = (e, from, to) => element("td", {}, e ? button(verdictWord(e), () => choosePair(from, to),
    { class: "v-" + verdictClass(e), "aria-label": `${from.name} to ${to.name}: ${verdictWord(e)}` }) : "");
  const rows = graph.nodes.map((n, i) => element("tr", {}, element("th", { scope: "row" }, n.name),
    cell(find(at, i), source, n), cell(find(i, at), n, source)));
  fill(byID("peers"), element("h2", {}, `With ${source.name}`), element("table", {},
    element("thead", {}, element("tr", {}, element("th", {}, "other end"), element("th", {}, "to it"), element("th", {}, "from it"))),
    element("tbody", {}, ...rows)));
}

function update() {
  showChosen();
  showPeers();
  const { source, destination, port } = state;
  const now = JSON.stringify([source?.id, destination?.id, port, state.graph.read]);
  if (now === shown) {
    return;
  }
  if (source && destination) {
    explainPair();
  } else if (source && source.kind === "workload") {
    attempt("end", { name: source.name }, (v) => showAnswer(v, false));
  } else {
    ask.giveUp();
    fill(byID("answer"));
  }
  shown = now;
}

byID("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  say("");
  explain(byID("from").value, byID("to").value);
});

onChange(update);
