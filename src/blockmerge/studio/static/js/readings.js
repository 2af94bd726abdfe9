// How a list of values is laid along a model: the same arithmetic as blockmerge.planning.gradients, so that a drag can be
// drawn within a frame. What is shown at rest are the plan's own numbers; a test holds the two together.

/** Over `count` tensors; every section runs from its first value to its last, what is left over gets the last. */
export function byTensor(values, count) {
  const found = new Float64Array(count).fill(values.at(-1));
  const sections = values.length - 1;
  if (sections === 0) return found;
  const each = Math.floor(count / sections);
  for (let section = 0; section < sections; section += 1) {
    const [first, last] = [values[section], values[section + 1]];
    for (let k = 0; k < each; k += 1) {
      found[section * each + k] = each === 1 ? first : k === each - 1 ? last : first + (k * (last - first)) / (each - 1);
    }
  }
  return found;
}

/** One value for each layer; tensors before the layers get the first value, those after them the last. */
export function byLayer(values, layers, before) {
  const present = [...new Set(layers.filter((layer) => layer !== null))].sort((a, b) => a - b);
  const place = new Map(present.map((layer, k) => [layer, present.length > 1 ? k / (present.length - 1) : 1]));
  return Float64Array.from(layers, (layer, k) => interpolated(values, layer === null ? Number(!before[k]) : place.get(layer)));
}

/** The polyline through `values` at `place` from 0 to 1. */
export function interpolated(values, place) {
  const at = place * (values.length - 1);
  const knot = Math.min(Math.trunc(at), values.length - 1);
  const rest = at - knot;
  return rest === 0 ? values[knot] : (1 - rest) * values[knot] + rest * values[knot + 1];
}

/** The share of model 2 in each tensor of `axis`; NaN where no curve covers it. */
export function ratios(axis, curves, form) {
  const found = new Float64Array(axis.count).fill(NaN);
  const taken = new Set();
  const named = Object.keys(curves).filter((block) => block !== "all");
  for (const block of [...named, ...("all" in curves ? ["all"] : [])]) {
    const chosen = selected(axis, block, form).filter((k) => !taken.has(k));
    const shares = laid(axis, curves[block], chosen, form.by);
    chosen.forEach((k, place) => {
      taken.add(k);
      found[k] = shares[place];
    });
  }
  return found;
}

/** Numbers of the tensors that the curve of `block` covers, as far as no other curve takes them first. */
export function covered(axis, curves, block, form) {
  const chosen = selected(axis, block, form);
  return block === "all" ? chosen.filter((k) => !(axis.block[k] in curves)) : chosen;
}

function laid(axis, values, chosen, by) {
  if (by !== "layer") return byTensor(values, chosen.length);
  return byLayer(values, chosen.map((k) => axis.layer[k]), chosen.map((k) => k < axis.firstInLayers));
}

function selected(axis, block, form) {
  const filters = [form.filters ?? []].flat();
  const [from, to] = (form.layers ?? "").split(":").map(Number);
  const literal = form.arithmetic === "original";
  return axis.every.filter((k) => {
    if (block !== "all" && axis.block[k] !== block) return false;
    if (filters.length > 0 && !filters.some((text) => axis.name[k].includes(text))) return false;
    const layer = axis.layer[k];
    if (form.layers && !(layer !== null && from <= layer && layer < to)) return false;
    const inLayers = literal ? axis.name[k].includes("layer") : layer !== null;
    return !form.only || inLayers === (form.only === "layers");
  });
}

/**
 * Where the values of a curve stand: for each a place on the axis, in numbers of tensors. `chosen` are the tensors that
 * the curve covers.
 */
export function knots(axis, count, chosen, by) {
  if (chosen.length === 0) return [];
  const at = (place) => {
    const low = Math.max(0, Math.min(chosen.length - 1, Math.floor(place)));
    const high = Math.min(chosen.length - 1, low + 1);
    return chosen[low] + (chosen[high] - chosen[low]) * Math.max(0, Math.min(1, place - low));
  };
  if (count === 1) return [at((chosen.length - 1) / 2)];
  if (by === "layer") return layerKnots(axis, count, chosen) ?? spread(count, at, chosen.length - 1);
  const each = Math.floor(chosen.length / (count - 1));
  if (each < 2) return spread(count, at, chosen.length - 1);
  return Array.from({ length: count }, (_, k) => at(k === 0 ? 0 : k === count - 1 ? k * each - 1 : k * each - 0.5));
}

const spread = (count, at, last) => Array.from({ length: count }, (_, k) => at((k * last) / (count - 1)));

function layerKnots(axis, count, chosen) {
  const middles = axis.layerMiddles(chosen);
  if (middles.length < 2) return null;
  return Array.from({ length: count }, (_, k) => {
    const place = (k * (middles.length - 1)) / (count - 1);
    const low = Math.min(middles.length - 2, Math.floor(place));
    return middles[low] + (middles[low + 1] - middles[low]) * (place - low);
  });
}
