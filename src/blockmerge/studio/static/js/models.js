// The models of the recipe, a slot each: who they are, and whether they go together.

import * as api from "./api.js";
import { announce, h, redraw } from "./dom.js";
import { count, percent, size } from "./format.js";
import { modelsOf, referenceOf, shortName, isPlain } from "./recipes.js";
import * as store from "./store.js";

export function models() {
  const slots = h("ol", { class: "slots" });
  const verdict = h("div", { class: "verdict", role: "status" });
  const buttons = h("div", { class: "row" });
  const pick = picker();

  const form = () => store.get("form");
  const declared = () => store.get("start")?.methods.find((method) => method.name === form().method);

  /** Again only if something of it changed: a drag changes the form many times a second, and never the models. */
  let drawn = null;
  function draw() {
    const { models: listed, base, method: name } = form();
    const now = JSON.stringify([listed, base, name, isPlain(form()), modelsOf(form()).map((one) => Boolean(store.get("seen")[one]))]);
    if (now === drawn) return;
    drawn = now;
    if (!isPlain(form())) {
      redraw(slots, modelsOf(form()).map((reference) => h("li", { class: "slot" }, h("code", {}, reference))));
      redraw(buttons);
      return;
    }
    const method = declared();
    const entries = form().models;
    const rows = [];
    if (method && method.base !== "none") {
      const title = method.base === "required" ? "Base" : "Base (optional)";
      rows.push(slot(title, referenceOf(form().base), (base) => edit({ base }), method.base === "optional" && form().base && (() => edit({ base: undefined }))));
    }
    const shown = Math.max(entries.length, least(method));
    for (let k = 0; k < shown; k += 1) {
      const removable = method && entries.length > method.models[0];
      rows.push(slot(`Model ${k + 1}`, referenceOf(entries[k]), (reference) => replace(k, reference), removable && (() => drop(k))));
    }
    redraw(slots, rows);
    const more = method && (method.models[1] === null || entries.length < method.models[1]);
    redraw(buttons, [
      more && entries.length >= least(method) && button("Add a model", () => pick.open((reference) => edit({ models: [...form().models, reference] }))),
      entries.length === 2 && button("Swap", () => edit({ models: [...form().models].reverse() })),
    ]);
  }

  const least = (method) => (method ? method.models[0] : 2);
  const button = (text, act) => h("button", { type: "button", class: "quiet", onclick: act }, text);

  function edit(change) {
    store.edit(Object.fromEntries(Object.entries({ ...form(), ...change }).filter(([, value]) => value !== undefined)));
  }

  function replace(k, reference) {
    const entries = [...form().models];
    entries[k] = typeof entries[k] === "object" && entries[k] !== null ? { ...entries[k], model: reference } : reference;
    edit({ models: entries.filter((entry) => entry !== undefined) });
  }

  const drop = (k) => edit({ models: form().models.filter((_, place) => place !== k) });

  function slot(title, reference, choose, removal) {
    const seen = reference ? store.get("seen")[reference] : null;
    return h("li", { class: reference ? "slot" : "slot vacant" },
      h("span", { class: "slot-title" }, title),
      h("button", { type: "button", class: "pick", "aria-label": `${title}: ${reference ? shortName(reference) : "choose"}`, "aria-haspopup": "dialog", title: reference, onclick: () => pick.open(choose) },
        reference ? shortName(reference) : "Choose a model", h("span", { class: "chevron", "aria-hidden": "true" })),
      h("span", { class: "facts" }, facts(seen, reference)),
      removal ? h("button", { type: "button", class: "quiet icon", "aria-label": `Remove ${title}`, onclick: removal }, "×") : "");
  }

  function facts(seen, reference) {
    if (!reference) return "";
    if (!seen) return "looking…";
    if (seen.problems) return h("span", { class: "problem" }, seen.problems[0].message);
    const words = [
      seen.architecture.replace(/For(CausalLM|ConditionalGeneration)$/, ""),
      `${seen.layers} layers`,
      `${count(seen.parameters)} parameters`,
      size(seen.bytes),
      seen.dtypes.join(", "),
      seen.vocabulary === null ? "" : `${seen.vocabulary.toLocaleString("en")} tokens`,
    ];
    return words.filter(Boolean).map((word) => h("span", {}, word));
  }

  /** At once, and before anything runs: whether they can be merged, and if not, why. */
  function judge() {
    const { plan, planProblems: problems, planning } = Object.fromEntries(["plan", "planProblems", "planning"].map((key) => [key, store.get(key)]));
    verdict.classList.toggle("stale", planning);
    const odd = modelsOf(form()).flatMap((reference) => (store.get("seen")[reference]?.odd ?? []).map((line) => `${shortName(reference)}: ${line}`));
    if (problems.length > 0) {
      verdict.replaceChildren(...problems.map((problem) => h("p", { class: "problem" }, problem.message)));
    } else if (plan) {
      const count = plan.inputs.length === 2 ? "Both go" : `All ${plan.inputs.length} go`;
      verdict.replaceChildren(h("p", { class: "good" }, `${count} together: ${plan.tensors.name.length} tensors of ${plan.architecture}.`), ...odd.map((line) => h("p", { class: "faint" }, line)));
    } else {
      verdict.replaceChildren(h("p", { class: "faint" }, "Pick two finetunes of one base. Nothing is read but headers until you merge."));
    }
  }

  store.watch(["form", "seen", "start"], draw);
  store.watch(["plan", "planProblems", "planning", "seen"], judge);
  return h("div", {}, slots, buttons, verdict, pick.element);
}

/** The dialog in which a model is chosen: those in the roots and the cache, or one of the Hub by its id. */
function picker() {
  let done = () => {};
  const query = h("input", { type: "search", placeholder: "Name, path or Hub id (org/name)", "aria-label": "Find a model", oninput: draw });
  const list = h("div", { class: "choices" });
  const trouble = h("p", { class: "problem", role: "alert" });
  let fetching = null; // a download that closing the dialog ends; what is here is kept for the next try
  const dialog = h("dialog", { class: "picker", "aria-label": "Choose a model", onclose: () => fetching?.abort(), onclick: (event) => event.target === dialog && dialog.close() },
    h("form", { method: "dialog", onsubmit: first },
      h("div", { class: "picker-head" }, query, h("button", { type: "button", class: "quiet icon", "aria-label": "Close", onclick: () => dialog.close() }, "×")),
      trouble, list));

  async function open(choose) {
    done = choose;
    query.value = "";
    trouble.textContent = "";
    draw();
    dialog.showModal();
    query.focus();
    try { // merges made new ones, perhaps
      store.set({ found: (await api.get("/api/models")).models });
      draw();
    } catch (error) {
      trouble.textContent = error.message;
    }
  }

  function draw() {
    const wanted = query.value.trim().toLowerCase();
    const found = store.get("found").filter((model) => `${model.name} ${model.reference}`.toLowerCase().includes(wanted));
    const places = [...new Set(found.map((model) => model.place))];
    const groups = places.map((place) => h("section", { "aria-label": place },
      h("h3", {}, place),
      ...found.filter((model) => model.place === place).map((model) =>
        h("button", { type: "button", class: "choice", onclick: () => take(model.reference) }, h("span", {}, model.name), h("span", { class: "faint" }, `${model.merged ? "a merge, " : ""}${size(model.size)}`)))));
    const typed = query.value.trim();
    const other = typed === "" || found.some((model) => model.reference === typed) ? null : typed;
    list.replaceChildren(...groups, ...(other ? [h("section", {}, h("h3", {}, "Something else"),
      h("button", { type: "button", class: "choice", onclick: () => fetchIt(other) }, h("span", {}, other), h("span", { class: "faint" }, "a folder in the roots, base+adapter, or downloaded from the Hub")))] : []),
      ...(groups.length === 0 && !other ? [h("p", { class: "faint" }, "No models are in the roots. Type a Hub id, or start the studio with --root FOLDER.")] : []));
  }

  function first(event) {
    event.preventDefault();
    list.querySelector(".choice")?.click();
  }

  function take(reference) {
    dialog.close();
    done(reference);
  }

  async function fetchIt(reference) {
    trouble.textContent = "";
    const bar = h("progress", { max: 1, "aria-label": `Download of ${reference}` });
    const line = h("p", { class: "faint" }, `Looking at ${reference}…`);
    list.replaceChildren(h("div", { class: "fetching" }, line, bar));
    announce(`Looking at ${reference}`);
    const mine = new AbortController();
    fetching = mine;
    try {
      await api.stream("/api/fetch", { reference }, ({ read, total, model }) => {
        if (model) {
          store.set({ seen: { ...store.get("seen"), [reference]: model } });
          take(reference);
        } else {
          bar.value = total > 0 ? Math.min(1, read / total) : 0;
          line.textContent = `${reference}: ${size(read)}${total > 0 ? ` of ${size(total)}, ${percent(Math.round((100 * read) / total) / 100)}` : ""}`;
        }
      }, mine.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      trouble.textContent = error.message;
      draw();
    } finally {
      if (fetching === mine) fetching = null;
    }
  }

  return { element: dialog, open };
}
