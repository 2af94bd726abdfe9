// The picture of a gradient: tensors across, share of model 2 up. It draws what it is given and reports what hands do.
//
// However many tensors there are, each block is one path for its line and one for its dots, so a drag costs a few
// attributes a frame. Handles are the only elements that come and go, and only when their number changes.

import { s } from "./dom.js";
import { percent } from "./format.js";

const MARGIN = { left: 56, right: 22, top: 18, bottom: 32 };
const HEAT = 22;
const NEAR = 26;
const MOST_HANDLES = 200;
const SHADES = 12;

/**
 * `hands` are called as hands move: `move(k, value, passing)`, `add(place, value)`, `remove(k)`, `choose(k)` with the
 * number of a value, and `point(tensor)` with the tensor under the pointer, or null.
 */
export function plot(hands, label) {
  const parts = {
    bands: s("path", { class: "bands" }),
    grid: s("g", { class: "grid", "aria-hidden": "true" }),
    layers: s("g", { class: "layer-labels", "aria-hidden": "true" }),
    heat: s("g", { class: "heat" }),
    floor: s("path", { class: "floor" }),
    lines: s("g", { class: "lines" }),
    guide: s("polyline", { class: "guide" }),
    cross: s("path", { class: "cross" }),
    spot: s("circle", { class: "spot", r: 5 }),
    handles: s("g", { class: "handles", role: "group", "aria-label": "Values of the curve" }),
  };
  const root = s("svg", { class: "plot", role: "group", "aria-label": label }, ...Object.values(parts));
  const blocks = new Map();
  let scene = null;
  let box = { width: 800, height: 360 };
  let drag = null;
  let frame = 0;

  const bottom = () => box.height - MARGIN.bottom - (scene?.heat ? HEAT : 0);
  const inner = () => box.width - MARGIN.left - MARGIN.right;
  const x = (place) => MARGIN.left + (inner() * (place + 0.5)) / scene.axis.count;
  const y = (share) => bottom() - ((bottom() - MARGIN.top) * (share - scene.low)) / (scene.high - scene.low);
  const share = (py) => scene.low + ((bottom() - py) / (bottom() - MARGIN.top)) * (scene.high - scene.low);
  const tensorAt = (px) => Math.max(0, Math.min(scene.axis.count - 1, Math.floor(((px - MARGIN.left) / inner()) * scene.axis.count)));

  // ---- drawing ---------------------------------------------------------------------------------------------------

  /** Show `next`: {axis, ratios, colours, values, places, block, colour, chosen, heat}. */
  function show(next) {
    const before = scene;
    scene = { ...next, ...range(next, drag ? before : null) };
    if (!before || before.axis !== scene.axis || before.heat !== scene.heat || before.low !== scene.low || before.high !== scene.high) frameOf();
    curves();
    handles();
  }

  /** What does not move with the curve: axes, layers, heat. */
  function frameOf() {
    root.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    const ticks = [...new Set([0, 0.25, 0.5, 0.75, 1, scene.low, scene.high])];
    parts.grid.replaceChildren(...ticks.flatMap((tick) => [
      s("line", { x1: MARGIN.left, x2: box.width - MARGIN.right, y1: y(tick), y2: y(tick), class: tick === 0 || tick === 1 ? "edge" : null }),
      s("text", { x: MARGIN.left - 10, y: y(tick) + 4, "text-anchor": "end" }, percent(tick).replace(" ", "\u202f")),
    ]));
    const { spans } = scene.axis;
    const band = spans.filter((_, k) => k % 2 === 0);
    parts.bands.setAttribute("d", band.map((span) => rectangle(span.first, span.last, MARGIN.top, bottom())).join(""));
    const step = Math.max(1, Math.ceil((spans.length * 30) / inner()));
    parts.layers.replaceChildren(
      s("text", { x: MARGIN.left - 10, y: box.height - 10, "text-anchor": "end" }, "layer"),
      ...spans.filter((_, k) => k % step === 0).map((span) =>
        s("text", { x: x((span.first + span.last) / 2), y: box.height - 10, "text-anchor": "middle" }, span.layer)),
    );
    heat();
  }

  /** Under the curve, how much the two models differ in each tensor; a path for each shade. */
  function heat() {
    if (!scene.heat) {
      parts.heat.replaceChildren();
      return;
    }
    const top = bottom() + 6;
    const shades = Array.from({ length: SHADES }, () => []);
    scene.axis.name.forEach((name, k) => {
      const shade = scene.heat.shade(name);
      if (shade !== null) shades[Math.min(SHADES - 1, Math.floor(shade * SHADES))].push(rectangle(k, k, top, top + HEAT - 8));
    });
    parts.heat.replaceChildren(
      s("title", {}, "Where the models differ: the stronger the colour, the more"),
      s("text", { x: MARGIN.left - 10, y: top + HEAT - 11, "text-anchor": "end" }, "differ"),
      ...shades.map((found, k) => s("path", { d: found.join(""), opacity: 0.06 + (0.94 * (k + 1)) / SHADES })),
    );
  }

  function curves() {
    const { axis, ratios } = scene;
    const dot = axis.count <= 150 ? 7 : axis.count <= 600 ? 4 : 2.4;
    for (const block of axis.blocks) {
      if (!blocks.has(block)) {
        const colour = scene.colours[block] ?? scene.colours.other;
        const drawn = { line: s("path", { class: "line", stroke: colour }), dots: s("path", { class: "dots", stroke: colour }) };
        blocks.set(block, drawn);
        parts.lines.append(drawn.line, drawn.dots);
      }
    }
    const lines = new Map(axis.blocks.map((block) => [block, []]));
    const floor = [];
    for (let k = 0; k < axis.count; k += 1) {
      if (Number.isNaN(ratios[k])) floor.push(`M${x(k).toFixed(1)} ${(y(0) - 3).toFixed(1)}v6`);
      else lines.get(axis.block[k]).push(`${x(k).toFixed(1)} ${y(ratios[k]).toFixed(1)}`);
    }
    for (const [block, { line, dots }] of blocks) {
      const points = lines.get(block) ?? [];
      const faded = scene.block !== "all" && scene.block !== block;
      line.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
      dots.setAttribute("d", points.map((point) => `M${point}h0`).join(""));
      dots.setAttribute("stroke-width", dot);
      line.classList.toggle("faded", faded);
      dots.classList.toggle("faded", faded);
    }
    parts.floor.setAttribute("d", floor.join(""));
  }

  /** The values in hand: a line through them and a handle on each. */
  function handles() {
    const { values, places } = scene;
    parts.guide.setAttribute("points", places.map((place, k) => `${x(place)},${y(values[k])}`).join(" "));
    parts.guide.setAttribute("stroke", scene.colour);
    const shown = places.length <= MOST_HANDLES ? places.length : 0;
    while (parts.handles.children.length > shown) parts.handles.lastChild.remove();
    while (parts.handles.children.length < shown) parts.handles.append(handle(parts.handles.children.length));
    [...parts.handles.children].forEach((group, k) => {
      group.setAttribute("transform", `translate(${x(places[k]).toFixed(1)} ${y(values[k]).toFixed(1)})`);
      group.setAttribute("tabindex", k === scene.chosen ? 0 : -1);
      group.setAttribute("aria-label", `${scene.title}, value ${k + 1} of ${values.length}`);
      group.setAttribute("aria-valuenow", values[k]);
      group.setAttribute("aria-valuetext", `${percent(values[k])} of model 2`);
      group.setAttribute("aria-valuemin", scene.low);
      group.setAttribute("aria-valuemax", scene.high);
      group.style.setProperty("--curve", scene.colour);
      group.classList.toggle("chosen", k === scene.chosen);
      group.classList.toggle("small", places.length > 40);
    });
  }

  function handle(k) {
    return s(
      "g",
      { class: "handle", role: "slider", "aria-orientation": "vertical", onkeydown: (event) => key(event, k), onfocus: () => hands.choose(k) },
      s("circle", { class: "reach", r: 20 }),
      s("circle", { class: "halo", r: 12 }),
      s("circle", { class: "knob", r: 6.5 }),
    );
  }

  const rectangle = (first, last, top, low) =>
    `M${x(first - 0.5).toFixed(1)} ${top}H${x(last + 0.5).toFixed(1)}V${low}H${x(first - 0.5).toFixed(1)}Z`;

  /** The tensor that is told about below the plot. */
  function spot(k) {
    const there = k !== null && scene;
    parts.cross.setAttribute("d", there ? `M${x(k).toFixed(1)} ${MARGIN.top}V${bottom()}` : "");
    const known = there && !Number.isNaN(scene.ratios[k]);
    parts.spot.setAttribute("visibility", known ? "visible" : "hidden");
    if (!known) return;
    parts.spot.setAttribute("cx", x(k));
    parts.spot.setAttribute("cy", y(scene.ratios[k]));
    parts.spot.setAttribute("fill", scene.colours[scene.axis.block[k]] ?? scene.colours.other);
  }

  // ---- hands -----------------------------------------------------------------------------------------------------

  const STEPS = { ArrowUp: 0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1 };

  function key(event, k) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { values } = scene;
    const bounded = (value) => Math.max(scene.low, Math.min(scene.high, value));
    if (event.key in STEPS) hands.move(k, bounded(values[k] + STEPS[event.key] * (event.shiftKey ? 10 : 1)), false);
    else if (event.key === "Home") hands.move(k, scene.low, false);
    else if (event.key === "End") hands.move(k, scene.high, false);
    else if (event.key === "ArrowLeft") focus(k - 1);
    else if (event.key === "ArrowRight") focus(k + 1);
    else if (event.key === "Insert" || event.key === "+") hands.add(k);
    else if (event.key === "Delete" || event.key === "Backspace") hands.remove(k);
    else return;
    event.preventDefault();
  }

  function focus(k) {
    parts.handles.children[Math.max(0, Math.min(k, parts.handles.children.length - 1))]?.focus({ preventScroll: true });
  }

  function local(event) {
    const rectangle = root.getBoundingClientRect();
    return [event.clientX - rectangle.left, event.clientY - rectangle.top];
  }

  /** The value whose handle is nearest, and its distance; a finger may be less exact than a mouse. */
  function nearest([px, py]) {
    let best = { k: -1, distance: Infinity };
    scene.places.forEach((place, k) => {
      const distance = Math.hypot(x(place) - px, y(scene.values[k]) - py);
      if (distance < best.distance) best = { k, distance };
    });
    return best;
  }

  root.addEventListener("pointerdown", (event) => {
    if (!scene || event.button !== 0) return;
    const point = local(event);
    const { k, distance } = nearest(point);
    if (distance > NEAR) return;
    drag = { k, offset: y(scene.values[k]) - point[1] };
    root.setPointerCapture(event.pointerId);
    root.classList.add("dragging");
    hands.choose(k);
    focus(k);
    event.preventDefault();
  });

  // A finger on a handle drags; beside them it scrolls the page. (touch-action does not reach into an SVG everywhere.)
  root.addEventListener("touchstart", (event) => {
    if (scene && event.touches.length === 1 && nearest(local(event.touches[0])).distance <= NEAR) event.preventDefault();
  }, { passive: false });

  root.addEventListener("pointermove", (event) => {
    if (!scene) return;
    const point = local(event);
    const painting = event.shiftKey;
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      hands.point(tensorAt(point[0]));
      if (drag) pull(point, painting);
    });
  });

  /** Move the value in hand; with Shift, whichever the pointer passes, so that a curve can be painted. */
  function pull(point, painting) {
    if (painting) {
      const near = scene.places.reduce((best, place, k) => (Math.abs(x(place) - point[0]) < Math.abs(x(scene.places[best]) - point[0]) ? k : best), 0);
      drag = { k: near, offset: 0 };
    }
    const value = Math.max(scene.low, Math.min(scene.high, share(point[1] + drag.offset)));
    hands.move(drag.k, Math.round(value * 100) / 100, true);
  }

  function drop(event) {
    if (!drag) return;
    cancelAnimationFrame(frame);
    if (event.type === "pointerup") pull(local(event), event.shiftKey);
    const { k } = drag;
    drag = null;
    root.classList.remove("dragging");
    hands.move(k, scene.values[k], false);
  }
  root.addEventListener("pointerup", drop);
  root.addEventListener("pointercancel", drop);
  root.addEventListener("pointerleave", () => {
    cancelAnimationFrame(frame);
    if (!drag) hands.point(null);
  });

  root.addEventListener("dblclick", (event) => {
    if (!scene) return;
    const point = local(event);
    const { k, distance } = nearest(point);
    if (distance <= NEAR / 2) hands.remove(k);
    else hands.add(scene.places.findLastIndex((place) => x(place) <= point[0]), share(point[1]));
  });

  new ResizeObserver(([entry]) => {
    const { width, height } = entry.contentRect;
    if (width < 1 || (width === box.width && height === box.height)) return;
    box = { width, height };
    if (!scene) return;
    frameOf();
    curves();
    handles();
  }).observe(root);

  return { element: root, show, spot, focus };
}

/** The shares that the plot spans: 0 to 1, and what lies outside; while a hand drags, it stays. */
function range({ ratios, values }, held) {
  if (held) return { low: held.low, high: held.high };
  let [low, high] = [0, 1];
  for (const share of [...ratios, ...values]) {
    if (share < low) low = share;
    if (share > high) high = share;
  }
  return { low, high };
}
