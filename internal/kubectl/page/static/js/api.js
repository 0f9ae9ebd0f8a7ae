// SPDX-License-Identifier: Apache-2.0

// Questions to kubectl podwall ui. The token comes behind the # of the address that it printed, which
// browsers send to no server. It is kept for this tab and this origin, and taken out of the address.

const place = "podwall-token";

// take keeps the token of the address; it returns false if there is none.
function take() {
  const given = location.hash.slice(1);
  if (!/^[A-Za-z0-9_-]{20,}$/.test(given)) {
    return false;
  }
  sessionStorage.setItem(place, given);
  history.replaceState(null, "", location.pathname);
  return true;
}

take();
// The address of another run at the same port, opened in this tab, changes only what is behind the #.
// The page starts anew, since nothing that it shows is of that run.
window.addEventListener("hashchange", () => {
  if (take()) {
    location.reload();
  }
});

// Problem is why a question has no answer.
export class Problem extends Error {}

// ask returns the answer to a question. values are texts, or lists of texts.
export async function ask(name, values = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      query.append(key, one);
    }
  }
  let answer;
  try {
    answer = await fetch("/api/" + name + "?" + query, { headers: { "X-Podwall-Token": sessionStorage.getItem(place) || "" }, signal,
      cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (e) {
    if (e.name === "AbortError") {
      throw e;
    }
    throw new Problem("kubectl podwall ui does not answer: has it ended?");
  }
  const text = await answer.text();
  if (answer.ok) {
    return JSON.parse(text);
  }
  if (answer.status === 422) {
    throw new Problem(JSON.parse(text).problem);
  }
  throw new Problem(text.trim());
}

// latest returns a form of ask that gives up an earlier question when there is a new one; the earlier
// one is answered with null.
export function latest() {
  let controller = null;
  const question = async (name, values) => {
    controller?.abort();
    const mine = (controller = new AbortController());
    try {
      const answer = await ask(name, values, mine.signal);
      return mine === controller ? answer : null;
    } catch (e) {
      if (mine.signal.aborted) {
        return null;
      }
      throw e;
    }
  };
  question.giveUp = () => controller?.abort();
  return question;
}
