// SPDX-License-Identifier: Apache-2.0

import { byID, button, element, fill } from "./dom.js";
import { ask, Problem } from "./api.js";
import { explain } from "./explain.js";
import { onShow, show } from "./tabs.js";

// Denied flows, as kubectl podwall flows --follow prints them. They are asked for while they are seen.

const maxKept = 200;
let running = null;
let last = 0;
const flows = new Map();

const pause = (wait) => new Promise((done) => { setTimeout(done, wait); });

function card(f) {
  const count = f.count > 1 ? `, ${f.count} packets` : "";
  const li = element("li", {}, element("p", { class: "quiet" }, `${f.time} ${f.verdict}${count}`),
    element("p", {}, f.text), element("p", { class: "v-denied" }, f.reason));
  if (f.destination) {
    li.append(button("Explain", () => {
      show("explain");
      explain(f.source, f.destination);
    }));
  }
  return li;
}

function draw(said) {
  const list = [...flows.values()].sort((a, b) => b.number - a.number);
  for (const f of list.splice(maxKept)) {
    flows.delete(f.key);
  }
  fill(byID("flowlist"), ...list.map(card));
  const state = list.length ? `${list.length} denied flows` : "No flow was denied in the last minutes.";
  fill(byID("flowstate"), [state, ...said].join(" · "));
}

async function follow(signal) {
  while (!signal.aborted) {
    try {
      const v = await ask("flows", { after: last }, signal);
      last = v.last;
      for (const f of v.flows) {
        flows.set(f.key, f);
      }
      draw(v.problem ? [...v.said, v.problem] : v.said);
      if (v.problem) {
        await pause(3000);
      }
    } catch (e) {
      if (signal.aborted) {
        return;
      }
      fill(byID("flowstate"), e.message);
      if (e instanceof Problem && flows.size === 0) {
        return; // files, or no right
      }
      await pause(3000);
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
