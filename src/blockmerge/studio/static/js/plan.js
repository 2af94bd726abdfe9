// The plan: everything that the merge will do, before it does anything.

import { h } from "./dom.js";
import { duration, number, size } from "./format.js";
import * as store from "./store.js";

const LARGE = 1e8; // smaller merges tell more of starting than of pace
const DISK = 5e8;
const methodOf = (recipe) => recipe.match(/^method: *(\w+)/m)?.[1];

export function plan() {
  const body = h("div", { class: "plan" });
  const table = h("tbody", {});
  const share = h("th", { scope: "col" });
  const filter = h("input", { type: "search", placeholder: "Names with…", "aria-label": "Filter tensors by name", oninput: fill });
  const details = h("details", { class: "more", ontoggle: fill },
    h("summary", {}, "Every tensor"),
    filter,
    h("div", { class: "table-box", tabindex: "0", role: "region", "aria-label": "Table of tensors" }, h("table", {},
      h("thead", {}, h("tr", {}, ...["Place", "Tensor", share, "Shape", "dtype", "Reads", "Writes"].map((title) => (title === share ? share : h("th", { scope: "col" }, title))))), table)));
  const heading = h("div", {});
  body.append(heading, details);

  function draw() {
    const found = store.get("plan");
    body.classList.toggle("stale", store.get("planning"));
    details.hidden = !found;
    if (!found) {
      heading.replaceChildren(h("p", { class: "faint" }, store.get("planProblems").length > 0 ? "There is no plan: see what is said under Models." : "Appears as soon as the models are chosen."));
      return;
    }
    const free = store.get("place")?.disk_free;
    heading.replaceChildren(
      h("dl", { class: "figures" },
        figure("Tensors", found.tensors.name.length, found.order === "table" ? "in module order" : "in natural order of names"),
        figure("Reads", size(found.bytes_to_read), `${found.inputs.length} models`),
        figure("Writes", size(found.bytes_to_write), `${found.shards} ${found.shards === 1 ? "file" : "files"} of ${found.dtype}, ${found.files} besides`),
        figure("Disk", free === null || free === undefined ? "–" : size(free), "free"),
        figure("Memory", size(found.memory), "whatever the size"),
        figure("Time", ...time(found))),
      ...found.warnings.map((line) => h("p", { class: "warning" }, line)),
      ...found.notes.map((line) => h("p", { class: "note" }, line)));
    fill();
  }

  /** How long it takes, as fast as the last large merge by the same method; before there is one, at the pace of a disk. */
  function time({ method, bytes_to_write: bytes }) {
    const last = store.get("jobs").findLast((job) => job.state === "done" && job.total >= LARGE && job.rate > 0 && methodOf(job.recipe) === method);
    const rate = last?.rate ?? DISK;
    if (bytes < LARGE) return ["a moment", "so little is it"];
    return [duration(Math.max(1, bytes / rate)), last ? `about, at ${size(Math.round(rate))}/s as the last` : `if the disk writes ${size(rate)}/s`];
  }

  const figure = (title, value, below) => h("div", {}, h("dt", {}, title), h("dd", {}, value), h("dd", { class: "faint" }, below));

  /** The rows, only while somebody looks at them. */
  function fill() {
    const found = store.get("plan");
    if (!found || !details.open) return;
    const { name, position, ratio, settings, dtype, shape, read, write, block } = found.tensors;
    share.textContent = found.method === "gradient" ? "Share of 2" : "Settings";
    const wanted = filter.value.trim();
    const colours = store.get("start").colours;
    table.replaceChildren(...name.map((text, k) => k).filter((k) => name[k].includes(wanted)).map((k) => {
      const dot = h("span", { class: "dot", title: block[k] });
      dot.style.setProperty("--curve", colours[block[k]]);
      return h("tr", {},
        h("td", { class: "number faint" }, position[k] ?? "–"),
        h("td", {}, dot, h("code", {}, name[k])),
        h("td", { class: "number" }, ratio[k] !== null ? number(Number(ratio[k].toPrecision(6))) : settings[k] || "model 1"),
        h("td", { class: "number" }, shape[k].join(" × ")),
        h("td", {}, dtype[k]),
        h("td", { class: "number" }, size(read[k])),
        h("td", { class: "number" }, size(write[k])));
    }));
  }

  store.watch(["plan", "planning", "planProblems", "place", "start"], draw);
  return body;
}
