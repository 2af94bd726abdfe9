// Trying out: the same prompt to both models and the blend, and how well each foretells a text.

import * as api from "./api.js";
import { h } from "./dom.js";
import { modelsOf, shortName } from "./recipes.js";
import * as store from "./store.js";

export function trial() {
  const body = h("div", {});
  const prompt = h("textarea", { id: "prompt", rows: 3, placeholder: "def fibonacci(n):" });
  const chat = h("input", { type: "checkbox" });
  const tokens = h("input", { type: "number", id: "tokens", min: 1, max: 2000, value: 200 });
  const blend = h("select", { id: "blend" });
  const columns = h("div", { class: "answers", "aria-live": "off" });
  const text = h("textarea", { id: "sample", rows: 3, placeholder: "A paragraph that none of them was trained on" });
  const measured = h("table", { class: "measured", hidden: true });
  const ask = h("button", { type: "button", class: "primary small", onclick: askAll }, "Ask");
  const measure = h("button", { type: "button", class: "primary small", onclick: measureAll }, "Measure");
  const trouble = h("p", { class: "problem", role: "alert" });
  let stopper = null;

  /** The models of the recipe and the blend that was chosen, with what they are called. */
  function asked() {
    const models = modelsOf(store.get("form")).map((reference) => ({ reference, title: shortName(reference) }));
    return blend.value ? [...models, { reference: blend.value, title: `${shortName(blend.value)}` }] : models;
  }

  async function askAll() {
    if (stopper) {
      stopper.abort();
      return;
    }
    if (prompt.value.trim() === "") {
      prompt.focus();
      return;
    }
    stopper = new AbortController();
    ask.textContent = "Stop";
    trouble.textContent = "";
    const answers = asked().map(({ reference, title }) => ({ reference, out: h("pre", { tabindex: "0", "aria-label": `Answer of ${title}` }), title }));
    columns.replaceChildren(...answers.map(({ title, out }) => h("article", {}, h("h3", {}, title), out)));
    try {
      for (const { reference, out } of answers) { // one after the other: one model is in memory at a time
        out.classList.add("busy");
        await api.stream("/api/ask", { reference, prompt: prompt.value, chat: chat.checked, tokens: Math.max(1, Math.min(2000, Math.round(Number(tokens.value)) || 200)) }, (piece) => piece.text && out.append(piece.text), stopper.signal);
        out.classList.remove("busy");
      }
    } catch (error) {
      if (error.name !== "AbortError") trouble.textContent = error.message;
    } finally {
      columns.querySelectorAll(".busy").forEach((out) => out.classList.remove("busy"));
      ask.textContent = "Ask";
      stopper = null;
    }
  }

  async function measureAll() {
    if (text.value.trim() === "") {
      text.focus();
      return;
    }
    measure.disabled = true;
    trouble.textContent = "";
    const rows = h("tbody", {});
    measured.hidden = false;
    measured.replaceChildren(h("thead", {}, h("tr", {}, ...["Model", "Perplexity", "Nats per byte", "Tokens"].map((title) => h("th", { scope: "col" }, title)))), rows);
    try {
      for (const { reference, title } of asked()) {
        const found = await api.post("/api/perplexity", { reference, text: text.value });
        rows.append(h("tr", {}, h("th", { scope: "row" }, title), h("td", { class: "number" }, found.perplexity.toPrecision(4)), h("td", { class: "number" }, found.nats_per_byte.toFixed(4)), h("td", { class: "number" }, found.tokens)));
      }
    } catch (error) {
      trouble.textContent = error.message;
    } finally {
      measure.disabled = false;
    }
  }

  function offer() {
    const done = [...new Set(store.get("jobs").filter((job) => job.state === "done").map((job) => job.out))].reverse();
    const before = blend.value;
    const entries = [...done.map((out) => h("option", { value: out }, shortName(out))), h("option", { value: "" }, done.length > 0 ? "none" : "no merge is finished yet")];
    if (blend.options.length > 0 && [...blend.options].map((option) => option.value).join() === entries.map((option) => option.value).join()) return;
    blend.replaceChildren(...entries);
    blend.value = done.includes(before) ? before : (done[0] ?? "");
  }

  store.watch(["start"], () => {
    const missing = store.get("start")?.trial ?? [];
    body.replaceChildren(...(missing.length > 0
      ? [h("p", { class: "faint" }, `Asking models needs ${missing.join(" and ")}: `, h("code", {}, "pip install 'blockmerge[eval]'"), ", then start the studio again.")]
      : [
          h("div", { class: "try-grid" },
            h("div", {}, h("label", { class: "field", for: "prompt" }, h("span", {}, "Prompt, for both models and the blend")), prompt,
              h("div", { class: "row" }, ask, h("label", { class: "check" }, chat, "as a chat"), h("label", { class: "field inline", for: "tokens" }, h("span", {}, "Tokens, at most"), tokens), h("label", { class: "field inline", for: "blend" }, h("span", {}, "Blend"), blend))),
            h("div", {}, h("label", { class: "field", for: "sample" }, h("span", {}, "Text of your own, to measure them on")), text, h("div", { class: "row" }, measure))),
          trouble, columns, measured,
        ]));
  });
  store.watch(["jobs"], offer);
  return body;
}
