// Keeping the recipe's spellings, the plan and the place for the result in step with the form.

import * as api from "./api.js";
import { modelsOf } from "./recipes.js";
import * as store from "./store.js";

const PLAN_AFTER = 180;

/** The folder for the result, as it is written in a command. */
export function outPath() {
  const { root, name } = store.get("out");
  return (store.get("start")?.roots[root]?.prefix ?? "") + name.trim();
}

/** The name for the next result: `blend-2` after `blend`. */
export const following = (name) => name.replace(/(?:-(\d+))?$/, (_, number) => `-${Number(number ?? 1) + 1}`);

/** What is sent as the recipe. */
export function wanted() {
  return { form: store.get("form"), out: outPath() };
}

const spell = api.latest(async () => {
  try {
    const { text, command, problems } = await api.post("/api/recipe", wanted());
    store.set({ text, command, problems });
  } catch (error) {
    store.set({ problems: error.problems });
  }
});

const plan = api.latest(async () => {
  if (modelsOf(store.get("form")).length === 0) {
    store.set({ plan: null, planProblems: [], planning: false });
    return;
  }
  const asked = store.get("form");
  try {
    const { plan: found, problems } = await api.post("/api/plan", wanted());
    if (asked === store.get("form")) store.set({ plan: found, planProblems: problems, planning: false });
  } catch (error) {
    store.set({ plan: null, planProblems: error.problems, planning: false });
  }
});
const planSoon = api.settled(PLAN_AFTER, plan);

/** Look at every model of the recipe, once each, or once more. */
const look = api.latest(async (again = false) => {
  for (const reference of modelsOf(store.get("form"))) {
    if (reference in store.get("seen") && !again) continue;
    try {
      store.set({ seen: { ...store.get("seen"), [reference]: await api.post("/api/model", { reference }) } });
    } catch (error) {
      store.set({ seen: { ...store.get("seen"), [reference]: { reference, problems: error.problems } } });
    }
  }
});

const checkPlace = api.latest(async () => {
  try {
    const place = await api.post("/api/output", { out: outPath() });
    const out = store.get("out");
    if (place.exists && !out.typed) store.set({ out: { ...out, name: following(out.name.trim()) } });
    else store.set({ place });
  } catch (error) {
    store.set({ place: { problems: error.problems } });
  }
});
const checkPlaceSoon = api.settled(PLAN_AFTER, checkPlace);

/** What a person typed as YAML: if it is a recipe, it becomes the form. */
export const typed = api.latest(async (text) => {
  store.set({ text });
  try {
    const { form, command, problems } = await api.post("/api/recipe", { text, out: outPath() });
    store.set({ problems, command: command || store.get("command") });
    if (form) {
      fromText = form;
      store.edit(form);
    }
  } catch (error) {
    store.set({ problems: error.problems });
  }
});
let fromText = null;

export function start() {
  store.watch(["form"], () => {
    store.set({ planning: true });
    if (store.get("form") === fromText) fromText = null; // the text is there already, as it was typed
    else spell();
    planSoon();
    look();
  });
  store.watch(["out", "start"], () => {
    if (!store.get("start")) return;
    if (store.get("problems").length === 0) spell();
    checkPlaceSoon();
  });
  // A merge that ends may have written into the place that is looked at, or over a model of the recipe.
  let ended = null;
  store.watch(["jobs"], () => {
    const now = store.get("jobs").map((job) => job.id + job.state).join();
    if (now !== ended && store.get("start")) {
      checkPlaceSoon();
      if (ended !== null && store.get("jobs").some((job) => job.state === "done")) {
        look(true);
        planSoon();
      }
    }
    ended = now;
  });
  const events = new EventSource("/api/jobs/events");
  events.onmessage = (event) => store.set({ jobs: JSON.parse(event.data), away: false });
  events.onerror = () => store.set({ away: true });
}
