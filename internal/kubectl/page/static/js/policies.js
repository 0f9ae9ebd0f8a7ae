// SPDX-License-Identifier: Apache-2.0

import { byID, element, fill, later, plain } from "./dom.js";
import { ask, latest } from "./api.js";
import { keep, since } from "./age.js";
import { onShow, show } from "./tabs.js";

// Policies with what lint finds about them, and with the answer of status.

const list = latest();
let first = 0;
let onFiles = false;
let enforced = null; // the answer of the nodes
let question = 0; // the number of the last question to the nodes
let reads = 0; // how often the objects were read
let value = null;

export function setFiles(files) {
  onFiles = files;
  byID("asknodes").hidden = files;
}

// stateOf is what the nodes say about a policy, if it is about the version that is shown.
function stateOf(p) {
  const { policies, versions } = enforced ?? {};
  const same = versions ? versions[p.name] === p.version : reads <= 1;
  return same ? policies?.[p.name] : undefined;
}

// stateLine is that in a line; none before the nodes have answered.
function stateLine(p) {
  const text = stateOf(p);
  if (text) {
    return [element("p", { class: "state" }, p.version ? `${text}, in its version ${p.version}` : text)];
  }
  return enforced && p.version ?
    [element("p", { class: "quiet" }, `not known of its version ${p.version}: ask the nodes again`)] : [];
}

function card(p) {
  const isolates = p.isolates.length ? "isolates " + p.isolates.join(" and ") : "isolates nothing";
  const li = element("li", {}, element("p", {}, element("b", {}, p.name)),
    element("p", {}, `${isolates} of ${p.pods} pods${p.audit ? "; in audit mode: not enforced" : ""}`));
  li.append(...stateLine(p));
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
  const mine = ++question;
  const nodes = byID("nodes");
  nodes.hidden = false;
  byID("asked").hidden = true;
  fill(nodes, "asking the agents …");
  try {
    const v = await ask("status");
    if (mine !== question) {
      return; // it is about what was read before, or there is a newer one
    }
    enforced = v;
    fill(nodes, v.text.trimEnd());
    const asked = since(v.at, v.now), read = since(v.read, v.now);
    byID("asked").hidden = !v.at;
    byID("asked").title = plain(`asked ${v.at}, read ${v.read}`);
    keep(byID("asked"), () => `The nodes were asked ${asked()}, the policies were read ${read()}.`);
    if (value) {
      draw();
    }
  } catch (e) {
    if (mine === question) {
      fill(nodes, e.message);
    }
  }
}

function showAll() {
  load();
  if (!onFiles) {
    askNodes();
  }
}

// find shows the policies with a text in their names.
export function find(text) {
  byID("policymatch").value = text;
  first = 0;
  show("policies");
  load();
}

// reload forgets what is known about objects that were read before, and asks again if policies are shown.
export function reload() {
  reads++;
  question++;
  enforced = null;
  byID("nodes").hidden = byID("asked").hidden = true;
  if (!byID("policies").hidden) {
    showAll();
  }
}

onShow("policies", (seen) => {
  if (seen) {
    showAll();
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
