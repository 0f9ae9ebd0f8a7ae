// SPDX-License-Identifier: Apache-2.0

import { fill, plain } from "./dom.js";

// How long ago something was, in words that stay true while they are shown.

const again = 5000; // milliseconds between two looks at what is shown
const units = [["second", 60], ["minute", 60], ["hour", 24], ["day", Infinity]];
const kept = new Map(); // by node

// words says an age in seconds.
function words(age) {
  if (age < 5) {
    return "just now";
  }
  for (const [unit, most] of units) {
    if (age < most) {
      const n = Math.floor(age);
      return `${n} ${unit}${n === 1 ? "" : "s"} ago`;
    }
    age /= most;
  }
}

// since returns a function that says how long ago a time was. now is the time of the answer that has it,
// by the same clock: that of kubectl podwall ui, which may run on another machine than the browser.
export function since(at, now) {
  const before = Date.parse(now) - Date.parse(at), came = Date.now();
  return Number.isFinite(before) ? () => words(Math.max(0, before + Date.now() - came) / 1000) : () => String(at);
}

// keep has a node show a text from now on, as the function text returns it.
export function keep(node, text) {
  kept.set(node, text);
  fill(node, text());
}

setInterval(() => {
  for (const [node, text] of kept) {
    if (node.textContent !== plain(text())) {
      fill(node, text());
    }
  }
}, again);
