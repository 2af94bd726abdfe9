// The tensors of a model as places on an axis.

/** From the columns that the server sends: `name`, `layer` and `block` of each tensor in module order. */
export function axisOf({ name, layer, block }) {
  const every = name.map((_, k) => k);
  const first = layer.findIndex((one) => one !== null);
  return {
    name,
    layer,
    block,
    every,
    count: name.length,
    firstInLayers: first < 0 ? name.length : first,
    blocks: [...new Set(block)],
    spans: spansOf(layer),
    layerMiddles: (chosen) => middlesOf(layer, chosen),
  };
}

/** The first and the last tensor of each layer, in order. */
function spansOf(layer) {
  const spans = new Map();
  layer.forEach((one, k) => {
    if (one === null) return;
    const span = spans.get(one);
    if (span) span.last = k;
    else spans.set(one, { layer: one, first: k, last: k });
  });
  return [...spans.values()].sort((a, b) => a.layer - b.layer);
}

function middlesOf(layer, chosen) {
  const sums = new Map();
  for (const k of chosen) {
    if (layer[k] === null) continue;
    const [sum, count] = sums.get(layer[k]) ?? [0, 0];
    sums.set(layer[k], [sum + k, count + 1]);
  }
  return [...sums.entries()].sort(([a], [b]) => a - b).map(([, [sum, count]]) => sum / count);
}
