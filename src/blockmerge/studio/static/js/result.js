// Where the result goes, what it costs, and the button.

import * as api from "./api.js";
import { announce, h } from "./dom.js";
import { size } from "./format.js";
import * as store from "./store.js";
import { following, wanted } from "./sync.js";

export function result() {
  const root = h("select", { "aria-label": "Root for the result", onchange: () => put({ root: Number(root.value) }) });
  const name = h("input", { id: "out", spellcheck: "false", autocomplete: "off", oninput: () => put({ name: name.value, typed: true }) });
  const overwrite = h("input", { type: "checkbox", onchange: () => put({ overwrite: overwrite.checked }) });
  const replace = h("label", { class: "check" }, overwrite, "Replace the model that is there");
  const place = h("p", { class: "place", role: "status" });
  const costs = h("dl", { class: "costs" });
  const button = h("button", { type: "button", class: "primary", onclick: merge }, "Merge");
  const trouble = h("p", { class: "problem", role: "alert" });

  const put = (change) => store.set({ out: { ...store.get("out"), ...change } });

  function draw() {
    const { out, place: found, plan, planning, problems, planProblems, start } = Object.fromEntries(
      ["out", "place", "plan", "planning", "problems", "planProblems", "start"].map((key) => [key, store.get(key)]));
    const roots = start?.roots ?? [];
    if (root.options.length !== roots.length) root.replaceChildren(...roots.map(({ path }, k) => h("option", { value: k }, path)));
    root.hidden = roots.length < 2;
    root.value = out.root;
    if (document.activeElement !== name) name.value = out.name;
    overwrite.checked = out.overwrite;
    replace.hidden = !found?.exists;
    const short = plan && found?.disk_free !== null && found?.disk_free < plan.bytes_to_write;
    place.className = found?.problems || short ? "place problem" : "place faint";
    place.textContent = found?.problems ? found.problems[0].message
      : short ? `needs ${size(plan.bytes_to_write)}, the disk has ${size(found.disk_free)} free`
      : found?.unfinished ? "An unfinished merge is there; the same recipe goes on from it."
      : found?.exists ? "A folder of that name exists." : (found?.path ?? "");
    costs.replaceChildren(...(plan ? [
      entry("reads", size(plan.bytes_to_read)),
      entry("writes", size(plan.bytes_to_write)),
      entry("memory", `${size(plan.memory)}`),
    ] : []));
    const ready = plan && !planning && problems.length === 0 && planProblems.length === 0 && !found?.problems && out.name.trim() !== "";
    button.setAttribute("aria-disabled", String(!ready || Boolean(found?.exists && !out.overwrite)));
  }

  const entry = (title, value) => h("div", {}, h("dt", {}, title), h("dd", {}, value));

  /** Why nothing can be merged at the moment. */
  function why() {
    if (store.get("problems").length > 0) return "The recipe has problems; they are told under its YAML.";
    if (name.value.trim() === "") return "The folder needs a name.";
    if (store.get("place")?.exists) return "Give another name, or tick the box to replace the model.";
    return store.get("planning") ? "The plan is being made; try again in a moment." : "There is nothing to merge yet; see Models.";
  }

  async function merge() {
    if (button.getAttribute("aria-disabled") === "true") {
      trouble.textContent = why();
      return;
    }
    trouble.textContent = "";
    try {
      const { problems } = await api.post("/api/jobs", { ...wanted(), overwrite: store.get("out").overwrite });
      if (problems.length > 0) throw new api.Refused(problems);
      announce("The merge is in the queue");
      put({ name: following(name.value.trim()), overwrite: false, typed: false });
      document.getElementById("merges").scrollIntoView({ block: "nearest", behavior: "smooth" });
    } catch (error) {
      trouble.textContent = error.message;
    }
  }

  store.watch(["out", "place", "plan", "planning", "problems", "planProblems", "start"], draw);
  return h("div", {},
    h("label", { class: "field", for: "out" }, h("span", {}, "Folder for the merged model")), root, name, place, replace,
    costs, button, trouble);
}
