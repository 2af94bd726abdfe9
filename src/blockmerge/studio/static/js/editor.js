// The editor of a gradient: chips for its curves, presets, the plot, the values as text, and what the pointer is over.

import { axisOf } from "./axis.js";
import * as api from "./api.js";
import { BLOCKS, PRESETS, coarser, curvesOf, finer, grown, mirrored, moved, shrunk, turned, withCurves } from "./curves.js";
import { announce, h, s } from "./dom.js";
import { number, numbers, percent } from "./format.js";
import { plot } from "./plot.js";
import { covered, knots, ratios } from "./readings.js";
import * as store from "./store.js";

const NAMES = { all: "Whole model", rest: "All others", embeddings: "Embeddings", attention: "Attention", mlp: "MLP", norms: "Norms", head: "Head" };

export function editor() {
  let chosen = 0;
  let pointed = null;
  let exact = new Map(); // the plan's ratios, by name
  let drawn = []; // our own, until the plan is there
  let axis = null;
  let axisFrom = null;

  const picture = plot({ move, add, remove, choose, point }, "Share of model 2 along the model");
  const chips = ["all", ...BLOCKS].map(chip);
  const typed = h("input", { class: "typed", id: "typed-values", spellcheck: "false", autocomplete: "off", oninput: type, onblur: write });
  const typedProblem = h("p", { class: "field-problem", role: "alert" });
  const readings = ["tensor", "layer"].map((by) => ({ by, button: h("button", { type: "button", onclick: () => lay(by) }, `by ${by}`) }));
  const told = h("p", { class: "told" });
  const tools = toolbar();
  const empty = h("p", { class: "empty" }, "Pick two models, and the curve lies over their tensors.");
  const compare = h("button", { type: "button", class: "quiet", onclick: compareModels }, "Show where they differ");
  const presets = h("div", { class: "presets", role: "group", "aria-label": "Shapes to begin with" }, ...PRESETS.map(preset));
  const options = h("div", { class: "options" });

  // ---- the recipe and the curve in hand ---------------------------------------------------------------------------

  const form = () => store.get("form");
  const curves = () => curvesOf(form());
  const block = () => store.get("block");
  const values = () => curves()[block()] ?? null;

  function put(list, passing = false) {
    store.edit(withCurves(form(), { ...curves(), [block()]: list }), { passing });
  }

  function move(k, value, passing) {
    put(moved(values(), k, value), passing);
  }

  function add(after, value) {
    const list = values() ?? [];
    const at = Math.max(0, after ?? list.length - 1);
    const next = list.length === 0 ? [0.5] : grown(list, at);
    chosen = list.length === 0 ? 0 : at + 1;
    put(value === undefined ? next : moved(next, chosen, Math.round(Math.max(0, Math.min(1, value)) * 100) / 100));
    announce(`${next.length} values`);
    picture.focus(chosen);
  }

  function remove(k) {
    if ((values() ?? []).length < 2) return;
    chosen = Math.max(0, k - 1);
    const next = shrunk(values(), k);
    put(next);
    announce(`${next.length} values`);
    picture.focus(chosen);
  }

  function choose(k) {
    if (chosen === k) return;
    chosen = k;
    draw();
  }

  function type() {
    const list = numbers(typed.value);
    typed.setAttribute("aria-invalid", list === null);
    typedProblem.textContent = list === null ? "Numbers with commas between them, such as 0, 0.5, 1" : "";
    if (list !== null) put(list);
  }

  // ---- what is shown ----------------------------------------------------------------------------------------------

  function draw() {
    const seen = store.get("seen")[form().models?.[0]];
    empty.hidden = Boolean(seen);
    picture.element.toggleAttribute("hidden", !seen);
    if (!seen) return;
    if (axisFrom !== seen) [axis, axisFrom] = [axisOf(seen.tensors), seen];
    const list = values() ?? [];
    chosen = Math.max(0, Math.min(chosen, list.length - 1));
    const places = knots(axis, list.length, covered(axis, curves(), block(), form()), form().by);
    drawn = ratios(axis, curves(), form());
    picture.show({
      axis,
      ratios: drawn,
      colours: store.get("start").colours,
      colour: block() === "all" ? "var(--ink)" : store.get("start").colours[block()],
      title: NAMES[block()],
      values: places.length > 0 ? list : [],
      places,
      block: block(),
      chosen,
      heat: heat(),
    });
    tell();
  }

  function heat() {
    const found = store.get("difference");
    return found && found.pair === pair().join("\n") ? found : null;
  }

  const pair = () => (form().models ?? []).slice(0, 2);

  function write() {
    if (document.activeElement === typed) return; // whoever types is ahead of us
    typed.value = (values() ?? []).map(number).join(", ");
    typed.removeAttribute("aria-invalid");
    typedProblem.textContent = "";
  }

  function point(k) {
    pointed = k;
    if (axis) picture.spot(k);
    tell();
  }

  /** The line below the plot: the tensor under the pointer with its exact share, or how to use the plot. */
  function tell() {
    if (pointed === null || !axis || pointed >= axis.count) {
      told.replaceChildren(h("span", { class: "faint" }, "Drag a point. Double-click adds one, or takes one away. Hold Shift to paint."));
      return;
    }
    const name = axis.name[pointed];
    const share = store.get("planning") || !exact.has(name) ? drawn[pointed] : (exact.get(name) ?? NaN);
    const differs = heat()?.relative[name];
    told.replaceChildren(
      h("span", { class: "told-share", title: Number.isNaN(share) ? null : number(share) }, Number.isNaN(share) ? "model 1" : `${number(Number((share * 100).toFixed(4)))} %`),
      h("code", {}, name),
      differs === undefined || differs === null ? "" : h("span", { class: "faint" }, `differs by ${percent(differs)}`),
    );
  }

  function chip(name) {
    const title = h("span", {}, NAMES[name]);
    const button = h("button", { type: "button", class: "chip", onclick: () => store.set({ block: name }) },
      h("span", { class: "dot", "aria-hidden": "true" }), title);
    return { name, title, button };
  }

  function drawChips() {
    const present = axis ? axis.blocks : BLOCKS;
    const own = curves();
    const common = Object.keys(own).every((name) => name === "all");
    for (const { name, title, button } of chips) {
      button.hidden = name !== "all" && !present.includes(name);
      button.classList.toggle("unset", !(name in own));
      button.setAttribute("aria-pressed", String(block() === name));
      button.style.setProperty("--curve", name === "all" ? "var(--ink)" : store.get("start").colours[name]);
      title.textContent = name === "all" && !common ? NAMES.rest : NAMES[name];
    }
  }

  /** The buttons below the plot: made once, so that the keyboard stays on them. `fits` says when one makes sense. */
  function toolbar() {
    const several = (list) => list.length > 1;
    const entries = [
      ["Add point", "One more value after the chosen one (Insert)", () => add(chosen), () => true],
      ["Remove point", "Take the chosen value away (Delete)", () => remove(chosen), several],
      ["Finer", "A value in the middle of every section; the shape stays", () => put(finer(values())), (list) => list.length <= 100],
      ["Coarser", "Every second value", () => put(coarser(values())), several],
      ["Mirror", "Last value first", () => put(mirrored(values())), several],
      ["Swap shares", "What was model 1's becomes model 2's", () => put(turned(values())), () => true],
      ["Drop curve", "These tensors follow the common curve, or stay model 1's", dropCurve, () => Object.keys(curves()).length > 1],
    ];
    const buttons = entries.map(([text, title, act, fits]) => ({ fits, button: h("button", { type: "button", class: "quiet", title, onclick: act }, text) }));
    const note = h("span", { class: "faint" });
    const give = h("button", { type: "button", class: "quiet strong", onclick: () => put(curves().all ?? [0.5]) }, "Give it a curve");
    return { buttons, note, give, element: h("div", { class: "tools" }, note, give, ...buttons.map(({ button }) => button)) };
  }

  function drawTools() {
    const list = values();
    for (const { fits, button } of tools.buttons) {
      button.hidden = list === null;
      button.disabled = list !== null && !fits(list);
    }
    tools.note.hidden = tools.give.hidden = list !== null;
    tools.note.textContent = block() === "all" ? "Everything else stays model 1's."
      : `${NAMES[block()]} ${"all" in curves() ? "follow the common curve" : "stay model 1's"}.`;
  }

  function dropCurve() {
    const { [block()]: _, ...others } = curves();
    store.edit(withCurves(form(), others));
  }

  function drawReading() {
    for (const { by, button } of readings) button.setAttribute("aria-pressed", String((form().by ?? "tensor") === by));
  }

  function lay(name) {
    const { by: _, ...rest } = form();
    store.edit(name === "tensor" ? rest : { ...rest, by: name });
  }

  function preset({ name, values: shape }) {
    const lists = Array.isArray(shape) ? { all: shape } : shape;
    return h(
      "button",
      { type: "button", class: "preset", onclick: () => apply(lists) },
      s("svg", { viewBox: "0 0 48 28", "aria-hidden": "true" }, ...Object.entries(lists).filter(([block]) => block !== "embeddings" && block !== "head").map(([block, list]) => spark(block, list))),
      h("span", {}, name),
    );
  }

  function apply(lists) {
    const single = "all" in lists;
    store.edit(withCurves(form(), single && block() !== "all" ? { ...curves(), [block()]: lists.all } : lists));
    if (!(block() in curves())) store.set({ block: Object.keys(lists)[0] });
  }

  function drawOptions() {
    const { only = "", dtype = "", arithmetic = "exact", on_missing: missing = "error", filters = [], layers = "" } = form();
    options.replaceChildren(
      choice("Only", "only", only, [["", "all tensors"], ["layers", "the layers"], ["non-layers", "outside the layers"]]),
      text("Names with", "filters", [filters].flat().join(", "), "self_attn, mlp", (value) => value.split(",").map((one) => one.trim()).filter(Boolean)),
      text("Layers", "layers", layers, "0:20", (value) => value.trim()),
      choice("Written as", "dtype", dtype, [["", "model 1's"], ["bfloat16", "bfloat16"], ["float16", "float16"], ["float32", "float32"]]),
      choice("Arithmetic", "arithmetic", arithmetic, [["exact", "exact"], ["original", "as the original"]], "exact"),
      choice("Missing tensors", "on_missing", missing, [["error", "are an error"], ["keep", "stay model 1's"]], "error"),
    );
  }

  function choice(label, key, value, entries, standard = "") {
    return h("label", { class: "field" }, h("span", {}, label),
      h("select", { onchange: (event) => setOption(key, event.target.value, standard) },
        ...entries.map(([name, shown]) => h("option", { value: name, selected: name === value }, shown))));
  }

  function text(label, key, value, placeholder, read) {
    return h("label", { class: "field" }, h("span", {}, label),
      h("input", { value, placeholder, spellcheck: "false", onchange: (event) => setOption(key, read(event.target.value), "") }));
  }

  function setOption(key, value, standard) {
    const { [key]: _, ...rest } = form();
    store.edit(value === standard || value.length === 0 ? rest : { ...rest, [key]: value });
  }

  async function compareModels() {
    const [first, second] = pair();
    const known = {};
    compare.disabled = true;
    compare.textContent = "Comparing…";
    try {
      await api.stream("/api/diff", { first, second }, ({ relative, read, total }) => {
        if (total) compare.textContent = `Comparing… ${percent(Math.round((100 * read) / total) / 100)}`;
        if (relative) store.set({ difference: shaded([first, second].join("\n"), Object.assign(known, relative)) });
      });
      store.set({ difference: { ...store.get("difference"), whole: true } });
      announce("The strip below the curve shows where the models differ");
    } catch (error) {
      announce(error.message);
      told.replaceChildren(h("span", { class: "problem" }, error.message));
    } finally {
      compare.disabled = false;
      compare.textContent = "Show where they differ";
    }
  }

  // ---- together ---------------------------------------------------------------------------------------------------

  store.watch(["form", "seen", "block", "start", "difference"], () => {
    if (!store.get("start") || form().method !== "gradient") return;
    draw();
    drawChips();
    drawTools();
    drawReading();
    write();
    compare.hidden = heat()?.whole || pair().length < 2;
  });
  store.watch(["form"], () => {
    if (!options.contains(document.activeElement)) drawOptions();
  });
  store.watch(["plan", "planning"], () => {
    const plan = store.get("plan");
    exact = new Map(plan?.method === "gradient" ? plan.tensors.name.map((name, k) => [name, plan.tensors.ratio[k]]) : []);
    tell();
  });

  return h(
    "div",
    { class: "editor" },
    h("div", { class: "editor-head" },
      h("div", { class: "chips", role: "group", "aria-label": "Curve in hand" }, ...chips.map(({ button }) => button)),
      h("div", { class: "segments", role: "group", "aria-label": "Values are laid" }, ...readings.map(({ button }) => button))),
    h("figure", { class: "card" }, empty, picture.element, h("figcaption", {}, told, compare)),
    tools.element,
    h("label", { class: "field", for: "typed-values" }, h("span", {}, "Values, from the first tensor to the last"), typed),
    typedProblem,
    h("h3", {}, "Shapes to begin with"),
    presets,
    h("details", { class: "more" }, h("summary", {}, "Selection, dtype and arithmetic"), options),
  );
}

/** A preset's line, in small. */
function spark(block, list) {
  const x = (k) => 4 + (list.length === 1 ? 0 : (40 * k) / (list.length - 1));
  const y = (value) => 24 - 20 * value;
  const points = list.length === 1 ? `4,${y(list[0])} 44,${y(list[0])}` : list.map((value, k) => `${x(k)},${y(value)}`).join(" ");
  const line = s("polyline", { points, class: "spark" });
  if (block !== "all") line.style.setProperty("--curve", `var(--block-${block})`);
  return line;
}

/** The differences of a pair, each as a shade from 0 to 1: by rank, since few tensors differ by far more than most. */
function shaded(pair, relative) {
  const sorted = Object.values(relative).filter((value) => value !== null).sort((a, b) => a - b);
  const rank = new Map(sorted.map((value, k) => [value, sorted.length > 1 ? k / (sorted.length - 1) : 1]));
  const shade = (name) => (relative[name] === undefined || relative[name] === null ? null : relative[name] === 0 ? 0 : rank.get(relative[name]));
  return { pair, relative, shade };
}
