// Looking into a form, whatever its method.

/** The reference of an entry under `models`, which may stand alone or beside its settings. */
export const referenceOf = (entry) => (typeof entry === "object" && entry !== null ? entry.model : entry);

/** Every model of the form, the base first. Slices, modules and stages are written as YAML and not looked into. */
export function modelsOf(form) {
  const named = (form.models ?? []).map(referenceOf);
  return [...new Set([referenceOf(form.base), ...named].filter((name) => typeof name === "string" && name !== ""))];
}

/** Whether the page's form can show it: one list of models, nothing that only YAML says. */
export function isPlain(form) {
  const apart = ["slices", "modules", "stages", "operations", "merge_method"];
  return Array.isArray(form.models) && !apart.some((key) => key in form);
}

/** What people call a model: the Hub id, or the last part of a path. */
export function shortName(reference) {
  return reference.split("+").map((part) => (part.startsWith("/") || part.split("/").length > 2 ? part.split("/").at(-1) : part)).join(" + ");
}
