// The values of a gradient as the page handles them: one list for each curve, by name of its block or "all".

export const BLOCKS = ["embeddings", "attention", "mlp", "norms", "head"];

/** The curves in `form`, each a list. */
export function curvesOf(form) {
  const values = form.values ?? [0];
  if (typeof values === "object" && !Array.isArray(values)) {
    return Object.fromEntries(Object.entries(values).map(([block, list]) => [block, [list].flat()]));
  }
  return { all: [values].flat() };
}

/** `form` with these curves, as short as a recipe can say them. */
export function withCurves(form, curves) {
  const names = ["all", ...BLOCKS].filter((block) => block in curves);
  const values = names.length === 1 && names[0] === "all"
    ? curves.all
    : Object.fromEntries([...names.filter((name) => name !== "all"), ...names.filter((name) => name === "all")]
        .map((block) => [block, curves[block]]));
  return { ...form, values };
}

const rounded = (value) => Math.round(value * 1e4) / 1e4;

export function moved(values, k, value) {
  return values.map((old, place) => (place === k ? rounded(value) : old));
}

/** One more value between number `k` and the next, on the line between them. */
export function grown(values, k) {
  const low = Math.min(k, values.length - 1);
  const high = Math.min(low + 1, values.length - 1);
  return values.toSpliced(low + 1, 0, rounded((values[low] + values[high]) / 2));
}

export const shrunk = (values, k) => (values.length > 1 ? values.toSpliced(k, 1) : values);

/** A value in the middle of every section: the same line with twice the places to hold it. */
export function finer(values) {
  if (values.length === 1) return [values[0], values[0]];
  return values.flatMap((value, k) => (k === 0 ? [value] : [rounded((values[k - 1] + value) / 2), value]));
}

/** Every second value; the ends stay. */
export function coarser(values) {
  if (values.length <= 2) return [values[0]];
  return values.filter((_, k) => k % 2 === 0 || (k === values.length - 1 && values.length % 2 === 0));
}

export const mirrored = (values) => values.toReversed();
export const turned = (values) => values.map((value) => rounded(1 - value));

/** Shapes to begin with; the last two are the published recipes of these models. */
export const PRESETS = [
  { name: "Half and half", values: [0.5] },
  { name: "From 1 to 2", values: [0, 1] },
  { name: "From 2 to 1", values: [1, 0] },
  { name: "2 in the middle", values: [0, 1, 0] },
  { name: "1 in the middle", values: [1, 0, 1] },
  { name: "2 at the end", values: [0, 0, 0, 1] },
  { name: "Gentle slope", values: [0.25, 0.75] },
  { name: "MythoMix", values: { attention: [0.8, 0.2], mlp: [0.3, 0.7], norms: [0.5] } },
  { name: "Mythalion", values: { attention: [0.2, 0.8], mlp: [0.8, 0.2], norms: [0.5], embeddings: [0.5], head: [0.5] } },
];
