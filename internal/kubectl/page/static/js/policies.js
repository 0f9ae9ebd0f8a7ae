// SPDX-License-Identifier: Apache-2.0

import { byID, element, fill, later } from "./dom.js";
import { ask, latest } from "./api.js";
import { onShow, show } from "./tabs.js";

// Policies with what lint finds about them, and with the answer of status.

const list = latest();
let first = 0;
let onFiles = false;
let enforced = null; // by policy, what the nodes say
let value = null;

export function setFiles(files) {
  onFiles = files;
  byID("asknodes").hidden = files;
}

function card(p) {
  const isolates = p.isolates.length ? "isolates " + p.isolates.join(" and ") : "isolates nothing";
  const li = element("li", {}, element("p", {}, element("b", {}, p.name)),
    element("p", {}, `${isolates} of ${p.pods} pods${p.audit ? "; in audit mode: not enforced" : ""}`));
  if (enforced?.[p.name]) {
    li.append(element("p", { class: "state" }, enforced[p.name]));
  }
  for (const f of p.findings) {
    li.append(element("p", { class: "finding" }, f));
  }
  return li;
}

function draw() {
  const v = value;
  fill(byID("policylist"), ...v.policies.map(card));
  const part = v.total > v.policies.length ? `${v.first + 1} to ${v.first + v.policies.length} of ` : "";
  const files = onFiles ? "; of files it is not known what is enforced" : "";
  fill(byID("policystate"), `${part}${v.total} policies${files}`);
  byID("policyback").hidden = v.first === 0;
  byID("policymore").hidden = v.first + v.policies.length >= v.total;
  first = v.first;
}

async function load() {
  try {
    const v = await list("policies", { match: byID("policymatch").value, first });
    if (v) {
      value = v;
      draw();
    }
  } catch (e) {
    fill(byID("policystate"), e.message);
  }
}

async function askNodes() {
  const nodes = byID("nodes");
  nodes.hidden = false;
  fill(nodes, "asking the agents …");
  try {
    const v = await ask("status");
    enforced = v.policies;
    fill(nodes, v.text.trimEnd());
    if (value) {
      draw();
    }
  } catch (e) {
    fill(nodes, e.message);
  }
}

// find shows the policies with a text in their names.
export function find(text) {
  byID("policymatch").value = text;
  first = 0;
  show("policies");
  load();
}

// reload reads the policies again, if they are shown.
export function reload() {
  if (!byID("policies").hidden) {
    load();
  }
}

onShow("policies", (seen) => {
  if (seen) {
    load();
    if (!onFiles && !enforced) {
      askNodes();
    }
  }
});
const soon = later(load);
byID("policymatch").addEventListener("input", () => {
  first = 0;
  soon();
});
byID("policyview").addEventListener("submit", (event) => event.preventDefault());
byID("asknodes").addEventListener("click", askNodes);
byID("policyback").addEventListener("click", () => {
  first = Math.max(0, first - 100);
  load();
});
byID("policymore").addEventListener("click", () => {
  first += 100;
  load();
});
