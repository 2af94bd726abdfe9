// Numbers for people.

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Bytes in decimal units, three digits. */
export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return unit === 0 ? `${bytes} B` : `${Number(value.toPrecision(3))} ${UNITS[unit]}`;
}

/** A count such as 6.74 B or 861 k. */
export function count(number) {
  for (const [limit, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (number >= limit) return `${Number((number / limit).toPrecision(3))} ${unit}`;
  }
  return String(number);
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const percent = (share) => `${Number((share * 100).toFixed(1))} %`;

/** A share as it is written in a recipe: as few digits as tell it exactly. */
export const number = (value) => String(Number(value));

/** A setting as it is typed: `0.5`, `0, 0.5, 1`, or by block `attention: 0.2, 0.8; mlp: 0.5`. */
export function spelled(value) {
  if (value === undefined) return "";
  if (typeof value !== "object") return number(value);
  if (Array.isArray(value)) return value.map(number).join(", ");
  return Object.entries(value).map(([block, list]) => `${block}: ${spelled(list)}`).join("; ");
}

/** What `spelled` wrote, or somebody in its manner; null if it makes no sense. */
export function setting(text) {
  if (!text.includes(":")) {
    const list = numbers(text);
    return list?.length === 1 ? list[0] : list;
  }
  const parts = text.split(";").filter((part) => part.trim() !== "").map((part) => part.match(/^\s*(\w+)\s*:([^:]*)$/));
  const entries = parts.map((part) => part && [part[1], setting(part[2])]);
  return entries.every((entry) => entry && entry[1] !== null) ? Object.fromEntries(entries) : null;
}

/** `0, 0.5, 1` as numbers; null if one of them is none. */
export function numbers(text) {
  const parts = text.trim().replace(/^\[|\]$/g, "").split(/[\s,;]+/).filter(Boolean);
  const values = parts.map(Number);
  return parts.length > 0 && values.every(Number.isFinite) ? values : null;
}
