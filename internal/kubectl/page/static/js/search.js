// SPDX-License-Identifier: Apache-2.0

import { byID, element, fill, later, say } from "./dom.js";
import { latest } from "./api.js";

// The search: a list under the input, as the pattern "combobox" of ARIA has it.

const ask = latest();
const input = byID("search");
const list = byID("found");
let found = [];
let at = -1;
let picker = () => {};

// onPick sets what is done with what was found.
export function onPick(action) {
  picker = action;
}

function close() {
  list.hidden = true;
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
  found = [];
  at = -1;
}

function mark() {
  for (const [i, li] of [...list.children].entries()) {
    li.setAttribute("aria-selected", String(i === at));
    if (i === at) {
      input.setAttribute("aria-activedescendant", li.id);
      li.scrollIntoView({ block: "nearest" });
    }
  }
}

function pick(i) {
  const f = found[i];
  close();
  if (f) {
    input.value = "";
    picker(f);
  }
}

async function load() {
  const text = input.value.trim();
  if (!text) {
    close();
    return;
  }
  try {
    const v = await ask("search", { q: text });
    if (!v || input.value.trim() !== text) {
      return;
    }
    found = v.found;
    at = found.length ? 0 : -1;
    fill(list, ...found.map((f, i) => {
      const li = element("li", { role: "option", id: `found-${i}`, "aria-selected": "false" },
        element("span", { class: "quiet" }, f.kind + " "), f.name);
      li.addEventListener("mousedown", (event) => event.preventDefault());
      li.addEventListener("click", () => pick(i));
      return li;
    }), ...(found.length ? [] : [element("li", { class: "quiet" }, "nothing has this in its name")]),
    ...(v.more ? [element("li", { class: "quiet" }, "and more: write more of the name")] : []));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark();
  } catch (e) {
    close();
    say(e.message);
  }
}

input.addEventListener("input", later(load, 120));
input.addEventListener("blur", close);
input.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && found.length) {
    event.preventDefault();
    at = (at + step + found.length) % found.length;
    mark();
  } else if (event.key === "Enter") {
    event.preventDefault();
    pick(at);
  } else if (event.key === "Escape") {
    close();
    input.value = "";
  }
});
