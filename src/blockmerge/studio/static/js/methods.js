// Choosing the method, and the form of every method but the gradient, made from its declaration.

import { h } from "./dom.js";
import { number, setting, spelled } from "./format.js";
import { isPlain, referenceOf, shortName } from "./recipes.js";
import * as store from "./store.js";

const GRADIENT = "gradient";

export function methodChoice() {
  const select = h("select", { id: "method", onchange: () => choose(select.value) });
  store.watch(["start", "form"], () => {
    const names = [GRADIENT, ...(store.get("start")?.methods ?? []).map((method) => method.name)];
    if (select.options.length !== names.length) select.replaceChildren(...names.map((name) => h("option", { value: name }, name.replaceAll("_", " "))));
    select.value = store.get("form").method ?? GRADIENT;
  });
  return h("label", { class: "field inline" }, h("span", {}, "Method"), select);
}

/** The same models with another method: what both have words for is kept. */
function choose(name) {
  const form = store.get("form");
  const chosen = [referenceOf(form.base), ...(form.models ?? []).map(referenceOf)].filter(Boolean);
  const { by, dtype } = form;
  const shared = Object.fromEntries(Object.entries({ by, dtype }).filter(([, value]) => value !== undefined));
  if (name === GRADIENT) {
    store.edit({ method: name, models: chosen.slice(0, 2), values: [0, 1], ...shared });
    return;
  }
  const method = store.get("start").methods.find((one) => one.name === name);
  const [base, ...others] = method.base === "required" ? chosen : [undefined, ...chosen];
  const models = others.slice(0, method.models[1] ?? others.length).map((model) => withRequired(model, method));
  const settings = method.parameters.filter((one) => one.default === null && !one.per_model).map((one) => [one.name, standard(one)]);
  store.edit({ method: name, ...(base ? { base } : {}), models, ...Object.fromEntries(settings), ...shared });
}

function withRequired(model, method) {
  const needed = method.parameters.filter((one) => one.default === null && one.per_model);
  return needed.length === 0 ? model : { model, ...Object.fromEntries(needed.map((one) => [one.name, standard(one)])) };
}

/** Where a recipe must say something, a value to begin with. */
const standard = (parameter) => (parameter.kind === "number" ? 0.5 : parameter.kind === "flag" ? false : parameter.choices[0]);

export function methodForm() {
  const body = h("div", { class: "method-form" });

  function draw() {
    const form = store.get("form");
    const method = store.get("start")?.methods.find((one) => one.name === form.method);
    if (!isPlain(form)) {
      body.replaceChildren(h("p", { class: "empty" }, "This recipe has slices, stages or operations; shape it in its YAML. Plan and merge work as ever."));
      return;
    }
    if (!method || (body.contains(document.activeElement) && body.dataset.method === method.name)) return;
    body.dataset.method = method.name;
    const own = method.parameters.filter((one) => !one.per_model);
    const each = method.parameters.filter((one) => one.per_model);
    body.replaceChildren(...[
      h("p", { class: "summary" }, method.summary),
      h("p", { class: "equation" }, h("code", {}, method.equation), h("span", { class: "faint" }, method.paper)),
      ...form.models.map((entry, k) => each.length > 0 && h("fieldset", {}, h("legend", {}, `Model ${k + 1}: ${shortName(referenceOf(entry))}`),
        ...each.map((one) => field(one, valueOf(entry, one.name), (value) => setEach(k, one.name, value), form[one.name])))),
      own.length > 0 && h("fieldset", {}, h("legend", {}, "Settings"), ...own.map((one) => field(one, form[one.name], (value) => setOwn(one.name, value)))),
      own.length + each.length === 0 && h("p", { class: "faint" }, "It has no settings."),
      h("p", { class: "faint" }, "Every number may be a gradient, ", h("code", {}, "0.2, 0.8"), ", from the first tensor to the last; or one for each block, ", h("code", {}, "attention: 0.2, 0.8; mlp: 0.5; all: 0.3"), "."),
    ].filter(Boolean));
  }

  const valueOf = (entry, name) => (typeof entry === "object" && entry !== null ? entry[name] : undefined);

  function setOwn(name, value) {
    const { [name]: _, ...rest } = store.get("form");
    store.edit(value === undefined ? rest : { ...rest, [name]: value });
  }

  function setEach(k, name, value) {
    const form = store.get("form");
    const entries = [...form.models];
    const { [name]: _, ...rest } = typeof entries[k] === "object" ? entries[k] : { model: entries[k] };
    const entry = value === undefined ? rest : { ...rest, [name]: value };
    entries[k] = Object.keys(entry).length === 1 ? entry.model : entry;
    store.edit({ ...form, models: entries });
  }

  store.watch(["start", "form"], draw);
  return body;
}

/** One setting. `common` is what the recipe says for all models, if it does. */
function field(parameter, value, put, common) {
  const id = `set-${parameter.name}-${Math.random().toString(36).slice(2)}`;
  const help = h("span", { class: "help", id: `${id}-help` }, parameter.help, bounds(parameter));
  return h("div", { class: "setting" }, h("label", { for: id }, parameter.name), input(parameter, value, put, common, id), help);
}

function bounds({ kind, low, high }) {
  if (kind !== "number" || (low === null && high === null)) return "";
  return ` (${low === null ? "up to" : number(low)}${low !== null && high !== null ? " to " : low !== null ? " or more" : " "}${high === null ? "" : number(high)})`;
}

function input(parameter, value, put, common, id) {
  const describedby = `${id}-help`;
  const standard = common ?? parameter.default;
  if (parameter.kind === "flag") {
    return h("input", { type: "checkbox", id, "aria-describedby": describedby, checked: value ?? standard ?? false, onchange: (event) => put(event.target.checked === parameter.default ? undefined : event.target.checked) });
  }
  if (parameter.kind === "choice") {
    const select = h("select", { id, "aria-describedby": describedby, onchange: (event) => put(event.target.value === parameter.default ? undefined : event.target.value) },
      ...parameter.choices.map((name) => h("option", { value: name }, name)));
    select.value = value ?? standard;
    return select;
  }
  return numberInput(parameter, value, put, standard, id, describedby);
}

function numberInput(parameter, value, put, standard, id, describedby) {
  const { low, high } = parameter;
  const box = h("input", { id, "aria-describedby": describedby, value: spelled(value), placeholder: spelled(standard ?? undefined), spellcheck: "false", oninput: read, onblur: read });

  function read() {
    const given = setting(box.value);
    const empty = box.value.trim() === "" && parameter.default !== null;
    const every = given === null ? [] : typeof given === "object" ? Object.values(given).flat() : [given];
    const fits = every.length > 0 && every.every((one) => (low === null || one >= low) && (high === null || one <= high));
    box.setAttribute("aria-invalid", String(!fits && !empty));
    if (empty) put(undefined);
    else if (fits) put(given);
  }
  return box;
}
