// The model card of a merge: its Markdown as elements, as far as our cards use it. Nothing in it becomes HTML.

import * as api from "./api.js";
import { h } from "./dom.js";

/** A dialog that shows the cards of merges; `open(job, title)`. */
export function cards() {
  const title = h("h2", {});
  const body = h("div", { class: "card-text", tabindex: "0" });
  const dialog = h("dialog", { class: "sheet", "aria-label": "Model card", onclick: (event) => event.target === dialog && dialog.close() },
    h("div", { class: "sheet-head" }, title, h("button", { type: "button", class: "quiet icon", "aria-label": "Close", onclick: () => dialog.close() }, "×")),
    body);

  async function open(job, name) {
    const address = `/api/jobs/${job.id}`;
    const { text, picture } = await api.get(`${address}/card`);
    title.textContent = name;
    body.replaceChildren(...elements(text, picture ? `${address}/picture` : null));
    dialog.showModal();
    body.scrollTop = 0;
  }

  return { element: dialog, open };
}

/** Blocks of Markdown: headings, fences, tables, lists, one picture, paragraphs. The front matter is left out. */
function elements(text, picture) {
  const blocks = text.replace(/^---\n[^]*?\n---\n/, "").match(/^```[^]*?^```|(?:^(?!```).+\n?)+/gm) ?? [];
  return blocks.map((block) => block.trim()).map((block) => {
    const lines = block.split("\n");
    const image = block.match(/^!\[(.*?)\]\(.*\)$/);
    if (image) return picture && h("img", { src: picture, alt: image[1] });
    if (block.startsWith("```")) return h("pre", { class: "command" }, lines.slice(1, -1).join("\n"));
    if (block.startsWith("#")) return h("h3", {}, inline(block.replace(/^#+ /, "")));
    if (block.startsWith("|")) return table(lines);
    if (block.startsWith("- ")) return h("ul", {}, ...block.slice(2).split("\n- ").map((item) => h("li", {}, inline(item))));
    return h("p", {}, inline(block));
  }).filter(Boolean);
}

function table([head, , ...rows]) {
  const cells = (line) => line.split(/(?<!\\)\|/).slice(1, -1).map((cell) => inline(cell.trim()));
  return h("table", {},
    h("thead", {}, h("tr", {}, ...cells(head).map((cell) => (cell.length > 0 ? h("th", { scope: "col" }, cell) : h("td", {}))))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row).map((cell) => h("td", {}, cell))))));
}

/** Code is set as code; of links and escapes, the words remain. */
const inline = (text) => text.split(/`([^`]*)`/).map((part, k) => (k % 2 ? h("code", {}, part) : words(part))).filter(Boolean);
const words = (text) => text.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replace(/\\([^\w\s])/g, "$1");
