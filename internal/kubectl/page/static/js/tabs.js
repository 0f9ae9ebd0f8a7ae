// SPDX-License-Identifier: Apache-2.0

import { byID } from "./dom.js";

const names = ["explain", "flows", "policies", "help"];
const listeners = {};
let current = "explain";

// onShow calls a function with true when a tab is shown, and with false when it is no more.
export function onShow(name, action) {
  listeners[name] = action;
}

export function show(name, focus = false) {
  if (name !== current) {
    listeners[current]?.(false);
  }
  for (const n of names) {
    const tab = byID("tab-" + n);
    tab.setAttribute("aria-selected", String(n === name));
    tab.setAttribute("tabindex", n === name ? "0" : "-1");
    byID(n).hidden = n !== name;
  }
  if (focus) {
    byID("tab-" + name).focus();
  }
  if (name !== current) {
    current = name;
    listeners[name]?.(true);
  }
}

export function showNumber(i) {
  if (names[i]) {
    show(names[i], true);
  }
}

for (const [i, name] of names.entries()) {
  const tab = byID("tab-" + name);
  tab.addEventListener("click", () => show(name));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) {
      event.preventDefault();
      show(names[(i + step + names.length) % names.length], true);
    }
  });
}
