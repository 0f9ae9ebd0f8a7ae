// SPDX-License-Identifier: Apache-2.0

import { byID, button, element, fill, plain } from "./dom.js";
import { ask, Problem } from "./api.js";
import { explain } from "./explain.js";
import { onShow, show } from "./tabs.js";

// Denied flows, as kubectl podwall flows --follow prints them. They are asked for while they are seen.

const maxKept = 200;
// The pauses between two questions: while all is well, and after a problem.
const shortPause = 500, longPause = 3000;
let running = null;
let last = 0;
const cards = new Map(); // by the key of the flow

const pause = (wait) => new Promise((done) => { setTimeout(done, wait); });

// newCard makes the card of a flow. Later records of the flow change it and do not replace it, so that
// its button keeps the focus.
function newCard() {
  const c = { flow: null, head: element("p", { class: "quiet" }), text: element("p"),
    reason: element("p", { class: "v-denied" }) };
  c.button = button("Explain", () => {
    show("explain");
    explain(c.flow.source, c.flow.destination);
  });
  c.item = element("li", {}, c.head, c.text, c.reason, c.button);
  return c;
}

function update(c, f) {
  c.flow = f;
  fill(c.head, `${f.time} ${f.verdict}${f.count > 1 ? `, ${f.count} packets` : ""}`);
  fill(c.text, f.text);
  fill(c.reason, f.reason);
  c.button.hidden = !f.destination;
}

// arrange puts items into a list in this order. The one with the focus stays where it is, and others move
// around it: an element that moves loses the focus.
function arrange(list, items) {
  const wanted = new Set(items);
  for (const item of [...list.children]) {
    if (!wanted.has(item)) {
      item.remove();
    }
  }
  const fixed = items.find((item) => item.contains(document.activeElement));
  let at = list.firstChild; // before it all is in order
  for (const item of items) {
    while (item === fixed && at !== fixed) {
      const next = at.nextSibling;
      list.append(at);
      at = next;
    }
    if (item === at) {
      at = at.nextSibling;
    } else {
      list.insertBefore(item, at);
    }
  }
}

// draw shows what is new in an answer.
function draw(v) {
  for (const f of v.flows) {
    if (!cards.has(f.key)) {
      cards.set(f.key, newCard());
    }
    update(cards.get(f.key), f);
  }
  if (v.flows.length) {
    const list = [...cards.values()].sort((a, b) => b.flow.number - a.flow.number);
    for (const c of list.splice(maxKept)) {
      cards.delete(c.flow.key);
    }
    arrange(byID("flowlist"), list.map((c) => c.item));
  }
  const state = cards.size ? `${cards.size} denied flows` : "No flow was denied in the last minutes.";
  sayState([state, ...v.said, ...(v.problem ? [v.problem] : [])].join(" · "));
}

// sayState says something once; screen readers read it each time that it is set.
function sayState(text) {
  const p = byID("flowstate");
  if (p.textContent !== plain(text)) {
    fill(p, text);
  }
}

async function follow(signal) {
  while (!signal.aborted) {
    try {
      const v = await ask("flows", { after: last }, signal);
      last = v.last;
      draw(v);
      await pause(v.problem ? longPause : shortPause);
    } catch (e) {
      if (signal.aborted) {
        return;
      }
      sayState(e.message);
      if (e instanceof Problem && cards.size === 0) {
        return; // files, or no right
      }
      await pause(longPause);
    }
  }
}

function start(seen) {
  running?.abort();
  running = null;
  if (seen && !document.hidden) {
    running = new AbortController();
    follow(running.signal);
  }
}

onShow("flows", start);
document.addEventListener("visibilitychange", () => start(!byID("flows").hidden));
