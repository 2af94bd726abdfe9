// Building elements, with the few conveniences that the page needs.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Properties that start with `on` are listeners; `null` and `false` leave an attribute out. */
export function h(tag, properties, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function s(tag, properties, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Other children for `container`. Who was on one of them by keyboard is on the one of the same name afterwards. */
export function redraw(container, ...children) {
  const active = container.contains(document.activeElement) ? document.activeElement : null;
  container.replaceChildren(...children.flat().filter((child) => child || child === 0));
  if (!active) return;
  const same = [...container.querySelectorAll(active.tagName)].find((element) => nameOf(element) === nameOf(active));
  same?.focus({ preventScroll: true });
}

const nameOf = (element) => element.getAttribute("aria-label")?.split(":")[0] ?? element.textContent;

export const byId = (id) => document.getElementById(id);

/** Say something to those who listen to the page instead of looking at it. */
export function announce(text) {
  byId("announcer").textContent = text;
}
