// SPDX-License-Identifier: Apache-2.0

import { byID, element, fill, later, say } from "./dom.js";
import { ask, latest } from "./api.js";
import { keep, since } from "./age.js";
import { state, changed, clearSelection, choosePair } from "./state.js";
import * as graph from "./graph.js";
import * as explain from "./explain.js";
import * as policies from "./policies.js";
import * as search from "./search.js";
import * as tabs from "./tabs.js";
import "./flows.js";

const askGraph = latest();
const step = 60; // as many nodes as an answer has

// load asks for the part of the graph that is to be seen, and draws it.
async function load() {
  try {
    const v = await askGraph("graph", { port: state.port, open: [...state.open], match: state.match, first: state.first });
    if (!v) {
      return;
    }
    state.graph = v;
    state.first = v.first;
    byID("previous").hidden = v.first === 0;
    byID("next").hidden = v.first + v.nodes.length >= v.total;
    byID("closeall").hidden = state.open.size === 0;
    say("");
    changed();
  } catch (e) {
    say(e.message);
  }
}

// toggle opens the namespace of a node, or closes it.
async function toggle(n) {
  if (n.kind === "host") {
    return;
  }
  const namespace = n.kind === "namespace" ? n.name : n.namespace;
  if (!state.open.delete(namespace)) {
    state.open.add(namespace);
  }
  state.source = state.destination = null;
  state.first = 0;
  await load();
  const next = state.graph.nodes.find((m) => m.namespace === namespace || m.id === "namespace:" + namespace);
  if (next) {
    graph.focus(next.id);
  }
}

// pick shows what was searched for.
async function pick(f) {
  if (f.kind === "policy") {
    policies.find(f.name);
    return;
  }
  if (f.kind !== "namespace" && f.namespace) {
    state.open.add(f.namespace);
  }
  state.match = byID("match").value = "";
  state.first = 0;
  await load();
  // It may be in a later part of the graph.
  while (!state.graph.nodes.some((n) => n.id === f.id) && state.first + step < state.graph.total) {
    state.first += step;
    await load();
  }
  const node = state.graph.nodes.find((n) => n.id === f.id);
  if (!node) {
    say(`${f.name} is not in the graph.`);
    return;
  }
  tabs.show("explain");
  choosePair(node, null);
  graph.focus(node.id);
}

function showFacts(about) {
  const read = since(about.read, about.now);
  keep(byID("source"), () => `${about.source}, read ${read()}`);
  const facts = { "read at": about.read, pods: about.pods, namespaces: about.namespaces, policies: about.policies,
    "not in the graph": `${about.leftOut} pods: on the network of their node, finished, or without an address` };
  fill(byID("facts"), ...Object.entries(facts).flatMap(([k, v]) => [element("dt", {}, k), element("dd", {}, v)]));
  fill(byID("notes"), ...about.notes.map((n) => element("li", {}, n)));
  policies.setFiles(about.files);
  const select = byID("port");
  fill(select, ...about.ports.map((p) => element("option", { value: p }, p)));
  if (!about.ports.includes(state.port)) {
    if (state.port) {
      select.append(element("option", { value: state.port }, state.port));
    } else {
      state.port = about.ports[0];
    }
  }
  select.value = state.port;
}

async function start(question) {
  try {
    showFacts(await ask(question));
    await load();
    policies.reload();
  } catch (e) {
    say(e.message);
  }
}

function setPort(port) {
  const select = byID("port");
  if (![...select.options].some((o) => o.value === port)) {
    select.append(element("option", { value: port }, port));
  }
  select.value = state.port = port;
  load();
}

byID("port").addEventListener("change", (event) => setPort(event.target.value));
byID("otherport").addEventListener("change", (event) => {
  const port = event.target.value.trim();
  if (port) {
    setPort(port);
  }
});
byID("view").addEventListener("submit", (event) => event.preventDefault());
for (const radio of document.querySelectorAll("input[name=show]")) {
  radio.addEventListener("change", () => {
    state.show = radio.value;
    graph.draw();
  });
}
const loadSoon = later(load);
byID("match").addEventListener("input", (event) => {
  state.match = event.target.value;
  state.first = 0;
  loadSoon();
});
byID("closeall").addEventListener("click", () => {
  state.open.clear();
  clearSelection();
  load();
});
byID("reload").addEventListener("click", async () => {
  byID("reload").disabled = true;
  await start("read");
  byID("reload").disabled = false;
});
for (const [id, sign] of [["previous", -1], ["next", 1]]) {
  byID(id).addEventListener("click", () => {
    state.first = Math.max(0, state.first + sign * step);
    load();
  });
}
document.addEventListener("keydown", (event) => {
  const writes = event.target.matches("select, input:not([type=radio])");
  if (event.ctrlKey || event.altKey || event.metaKey || writes) {
    return;
  }
  const actions = { "/": () => byID("search").focus(), g: () => graph.focus(), 1: () => tabs.showNumber(0),
    2: () => tabs.showNumber(1), 3: () => tabs.showNumber(2), 4: () => tabs.showNumber(3) };
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
});
graph.onOpen(toggle);
explain.onOpen(toggle);
search.onPick(pick);
start("about");
