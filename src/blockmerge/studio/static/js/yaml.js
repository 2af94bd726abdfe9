// The recipe as YAML and as a command: always what would do the same, and open to being edited.

import * as api from "./api.js";
import { announce, h } from "./dom.js";
import * as store from "./store.js";
import { outPath, typed } from "./sync.js";

export function recipe() {
  const command = h("code", { class: "command", role: "group", tabindex: "0", "aria-label": "The command that does the same" });
  const numbers = h("pre", { class: "line-numbers", "aria-hidden": "true" });
  const area = h("textarea", { class: "yaml", spellcheck: "false", autocapitalize: "off", "aria-label": "Recipe, YAML", "aria-describedby": "yaml-problems", wrap: "off", oninput: soon(), onscroll: follow, onblur: write });
  const problems = h("ul", { class: "problems", id: "yaml-problems" });
  const file = h("input", { type: "file", accept: ".yaml,.yml,text/yaml", hidden: true, onchange: open });
  const note = h("p", { class: "faint", role: "status" });

  function soon() {
    const later = api.settled(140, () => typed(area.value));
    return () => {
      count();
      later();
    };
  }

  function write() {
    if (document.activeElement !== area && area.value !== store.get("text")) area.value = store.get("text");
    count();
  }

  /** Line numbers beside the text; those with a problem stand out. */
  function count() {
    const lines = area.value.split("\n").length - (area.value.endsWith("\n") ? 1 : 0);
    const wrong = new Set(store.get("problems").map((problem) => problem.line));
    numbers.replaceChildren(...Array.from({ length: Math.max(lines, 1) }, (_, k) => h("span", { class: wrong.has(k + 1) ? "wrong" : null }, `${k + 1}\n`)));
    area.rows = Math.min(Math.max(lines, 4), 24);
    area.setAttribute("aria-invalid", String(wrong.size > 0));
    follow();
  }

  function follow() {
    numbers.scrollTop = area.scrollTop;
  }

  function complain() {
    command.classList.toggle("stale", store.get("problems").length > 0); // it is that of the last recipe without any
    problems.replaceChildren(...store.get("problems").map(({ line, message }) => h("li", {},
      line === null ? "" : h("button", { type: "button", class: "line-link", onclick: () => goTo(line) }, `line ${line}`), message)));
    count();
  }

  function goTo(line) {
    const lines = area.value.split("\n");
    const first = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
    area.focus();
    area.setSelectionRange(first, first + (lines[line - 1] ?? "").length);
  }

  async function open() {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    if (chosen.size > 200_000) {
      note.textContent = `${chosen.name} is too large to be a recipe.`;
      return;
    }
    area.value = await chosen.text();
    typed(area.value);
    note.textContent = `Opened ${chosen.name}.`;
  }

  async function copy(text, what) {
    await navigator.clipboard.writeText(text);
    note.textContent = `${what} copied.`;
  }

  function download() {
    const address = URL.createObjectURL(new Blob([area.value], { type: "text/yaml" }));
    const link = h("a", { href: address, download: "recipe.yaml" });
    link.click();
    URL.revokeObjectURL(address);
  }

  async function save() {
    const path = `${outPath() || "recipe"}.yaml`;
    try {
      note.textContent = `Saved as ${(await api.post("/api/save", { text: area.value, path })).path}.`;
    } catch (error) {
      note.textContent = error.message;
      announce(error.message);
    }
  }

  const button = (text, act, title) => h("button", { type: "button", class: "quiet", onclick: act, title }, text);
  store.watch(["text"], write);
  store.watch(["problems"], complain);
  store.watch(["command"], () => {
    const words = (store.get("command") || "—").split(" ");
    command.replaceChildren(...words.flatMap((word, k) => [k > 0 ? " " : "", h("span", {}, word)])); // an option is not broken at its dashes
  });
  return h("div", {},
    h("div", { class: "with-button" }, h("h3", {}, "Command"), button("Copy", () => copy(command.textContent, "Command"))),
    command,
    h("div", { class: "with-button" }, h("h3", {}, "YAML"), button("Copy", () => copy(area.value, "Recipe"))),
    h("div", { class: "yaml-box" }, numbers, area),
    h("div", { role: "alert" }, problems),
    h("div", { class: "row" }, button("Open…", () => file.click()), button("Download", download), button("Save beside the result", save, "Into the root, under the name of the result"), file),
    note);
}
