// The one store. What the page shows follows from it; whoever wants to know of a change names the keys it depends on.
//
// form      the recipe as plain values, in the words of a native recipe file
// text      the same as YAML; it is ahead of `form` while somebody types
// problems  what is wrong with `text`, each {message, line}
// command   what to type in a terminal for the same merge
// plan      what the merge will do (null: not known), planProblems why it cannot be done
// seen      models that were looked at, by reference
// out       where the result goes; a name that nobody `typed` gives way to what is there already
// away      whether the server was lost
// block     the curve that is in hand: "all" or the name of a block

const state = {
  start: null,
  found: [],
  seen: {},
  form: { method: "gradient", models: [], values: [0, 1] },
  text: "",
  problems: [],
  command: "",
  plan: null,
  planProblems: [],
  planning: false,
  block: "all",
  difference: null,
  out: { root: 0, name: "blend", overwrite: false, typed: false },
  place: null,
  jobs: [],
  away: false,
};
const listeners = [];
const past = [];
const future = [];
let kept = state.form;

export const get = (key) => state[key];

/** Change some keys, then tell those who depend on them. */
export function set(changes) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  for (const { keys, react } of listeners) {
    if (keys.some((key) => changed.includes(key))) react();
  }
}

/** Call `react` now and whenever one of `keys` changed. */
export function watch(keys, react) {
  listeners.push({ keys, react });
  react();
}

/** Change the recipe; one step of undo, unless it is a `passing` state such as the middle of a drag. */
export function edit(form, { passing = false } = {}) {
  if (!passing) {
    if (JSON.stringify(kept) !== JSON.stringify(form)) {
      past.push(kept);
      future.length = 0;
    }
    kept = form;
  }
  set({ form });
}

/** The recipe to begin with: what undo never leaves. */
export function begin(form) {
  kept = form;
  set({ form });
}

export const canUndo = () => past.length > 0;
export const canRedo = () => future.length > 0;

export function undo() {
  if (past.length > 0) step(past, future);
}

export function redo() {
  if (future.length > 0) step(future, past);
}

function step(from, to) {
  to.push(kept);
  kept = from.pop();
  set({ form: kept });
}
