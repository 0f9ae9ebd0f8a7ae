// SPDX-License-Identifier: Apache-2.0

// Every text of the page goes through this file. Names, labels and reasons are written by others: they
// become text nodes and values of attributes that hold text, never markup, style or an address.

const unprintable = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

// plain replaces characters that do not print, or turn the direction of the text.
export function plain(text) {
  return String(text).replace(unprintable, "\ufffd");
}

// The attributes that the page sets; others are a mistake.
const attributes = new Set(["class", "id", "role", "type", "tabindex", "title", "d", "r", "cx", "cy", "x", "y",
  "transform", "text-anchor", "colspan", "scope", "value"]);

function build(node, values, children) {
  for (const [name, value] of Object.entries(values)) {
    if (!attributes.has(name) && !name.startsWith("aria-") && !name.startsWith("data-")) {
      throw new Error("attribute " + name);
    }
    node.setAttribute(name, plain(value));
  }
  for (const child of children) {
    node.append(child instanceof Node ? child : document.createTextNode(plain(child)));
  }
  return node;
}

// element makes an element of HTML, shape one of SVG. Children are nodes or texts.
export function element(name, values = {}, ...children) {
  return build(document.createElement(name), values, children);
}

export function shape(name, values = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", name), values, children);
}

export function byID(id) {
  return document.getElementById(id);
}

// button makes a button with its action.
export function button(text, action, values = {}) {
  const b = element("button", { type: "button", ...values }, text);
  b.addEventListener("click", action);
  return b;
}

// fill replaces what is in a node.
export function fill(node, ...children) {
  node.replaceChildren(...children.map((c) => (c instanceof Node ? c : document.createTextNode(plain(c)))));
}

// say shows a problem at the top of the page; none hides it.
export function say(text) {
  const p = byID("problem");
  p.hidden = !text;
  fill(p, text || "");
}

// later calls a function when it was not asked to for a moment.
export function later(action, wait = 200) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  };
}
