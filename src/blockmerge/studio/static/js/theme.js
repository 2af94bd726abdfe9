// Light, dark, or as the system has it.

import { h } from "./dom.js";

const KEY = "blockmerge-studio-theme";
const CHOICES = [["auto", "Auto"], ["light", "Light"], ["dark", "Dark"]];

export function theme() {
  const buttons = CHOICES.map(([name, title]) => h("button", { type: "button", onclick: () => choose(name) }, title));

  function choose(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    localStorage.setItem(KEY, name);
    buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(CHOICES[k][0] === name)));
  }

  choose(localStorage.getItem(KEY) ?? "auto");
  return h("div", { class: "segments", role: "group", "aria-label": "Colours" }, ...buttons);
}
