// Putting the page together.

import * as api from "./api.js";
import { byId, h } from "./dom.js";
import { editor } from "./editor.js";
import { merges } from "./merges.js";
import { methodChoice, methodForm } from "./methods.js";
import { models } from "./models.js";
import { plan } from "./plan.js";
import { isPlain, modelsOf } from "./recipes.js";
import { result } from "./result.js";
import * as store from "./store.js";
import * as sync from "./sync.js";
import { theme } from "./theme.js";
import { trial } from "./trial.js";
import { recipe } from "./yaml.js";

besideOrBelow();
byId("theme").append(theme());
byId("models-body").append(models());
byId("method-choice").append(history(), methodChoice());
byId("shape-body").append(shape());
byId("plan-body").append(plan());
byId("merges-body").append(merges());
byId("result-body").append(result());
byId("recipe-body").append(recipe());
byId("try-body").append(trial());

try {
  const [start, { models: found }] = await Promise.all([api.get("/api/start"), api.get("/api/models")]);
  for (const [block, colour] of Object.entries(start.colours)) document.documentElement.style.setProperty(`--block-${block}`, colour);
  store.set({ start, found });
  store.begin(lastTime(found) ?? { ...store.get("form"), models: firstTwo(found) });
  sync.start();
  store.watch(["away"], () => { byId("away").hidden = !store.get("away"); });
} catch (error) {
  byId("models-body").prepend(h("p", { class: "problem", role: "alert" }, error.message));
}

/** The recipe stands beside the work, or, where there is no room, below the curve: there in the order of reading too. */
function besideOrBelow() {
  const aside = document.querySelector("aside");
  const narrow = matchMedia("(max-width: 1120px)");
  const place = () => (narrow.matches ? byId("shape").after(aside) : document.querySelector("main").append(aside));
  narrow.addEventListener("change", place);
  place();
}

/** The recipe that was on the page when it was left, if its models are still there; from now on each is kept for that. */
function lastTime(found) {
  const key = "blockmerge-studio-recipe";
  const known = new Set(found.map((model) => model.reference));
  let form = null;
  try {
    form = JSON.parse(localStorage.getItem(key));
  } catch { /* an older page wrote something else */ }
  store.watch(["plan"], () => store.get("plan") && localStorage.setItem(key, JSON.stringify(store.get("form"))));
  const models = form ? modelsOf(form) : [];
  return models.length > 0 && models.every((reference) => known.has(reference)) ? form : null;
}

/** To begin with: the first two models of the roots that are no merges, or the examples. */
function firstTwo(found) {
  const own = found.filter((model) => model.place !== "examples" && !model.merged);
  return (own.length >= 2 ? own : found).slice(0, 2).map((model) => model.reference);
}

/** The gradient's editor, or the form of another method. */
function shape() {
  const curve = editor();
  const form = methodForm();
  store.watch(["form"], () => {
    const now = store.get("form");
    const gradient = (now.method ?? "gradient") === "gradient" && isPlain(now);
    curve.hidden = !gradient;
    form.hidden = gradient;
  });
  return h("div", {}, curve, form);
}

function history() {
  const back = h("button", { type: "button", class: "quiet", title: "Undo (Ctrl+Z)", onclick: store.undo }, "Undo");
  const forth = h("button", { type: "button", class: "quiet", title: "Redo (Ctrl+Shift+Z)", onclick: store.redo }, "Redo");
  store.watch(["form"], () => {
    back.disabled = !store.canUndo();
    forth.disabled = !store.canRedo();
  });
  document.addEventListener("keydown", (event) => {
    const written = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
    if (written || !(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    if (event.shiftKey) store.redo();
    else store.undo();
  });
  return h("span", { class: "row" }, back, forth);
}
