// SPDX-License-Identifier: Apache-2.0

// What is chosen and shown. Those who draw it are told of every change.

export const state = {
  port: "", open: new Set(), match: "", first: 0, show: "allowed",
  graph: { nodes: [], edges: [], total: 0, first: 0 },
  source: null, destination: null, // nodes of the graph, as they were when they were chosen
};

const listeners = [];

// onChange calls a function when what is chosen changes.
export function onChange(listener) {
  listeners.push(listener);
}

export function changed() {
  for (const l of listeners) {
    l();
  }
}

// choose chooses a node: the source first, then the destination.
export function choose(node) {
  if (!state.source || state.destination) {
    state.source = node;
    state.destination = null;
  } else {
    state.destination = node;
  }
  changed();
}

export function choosePair(source, destination) {
  state.source = source;
  state.destination = destination;
  changed();
}

export function clearSelection() {
  choosePair(null, null);
}

// verdictWord is a verdict in words.
export function verdictWord(e) {
  if (!e) {
    return "no flow";
  }
  const word = e.v === "some" ? `some (${e.a} of ${e.f})` : e.v;
  return e.u ? word + ", audit mode" : word;
}

// verdictClass is how a verdict is drawn.
export function verdictClass(e) {
  if (e.v === "denied") {
    return "denied";
  }
  if (e.v === "allowed") {
    return e.u ? "audited" : "allowed";
  }
  return "some";
}
