// Talking to the server that this page came from.

/** What the server refuses, in its words: `problems` is a list of {message, line}. */
export class Refused extends Error {
  constructor(problems) {
    super(problems.map((problem) => problem.message).join("\n"));
    this.problems = problems;
  }
}

export async function request(method, path, body, signal) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused([{ message: "The studio does not answer; is it still running?", line: null }]);
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  throw new Refused(parsed(text)?.problems ?? [{ message: parsed(text)?.detail ?? text.trim(), line: null }]);
}

export const get = async (path) => (await request("GET", path)).json();
export const post = async (path, body) => (await request("POST", path, body)).json();
export const remove = async (path) => (await request("DELETE", path)).json();

/** Post, and call `onLine` with each line of JSON as it arrives. */
export async function stream(path, body, onLine, signal) {
  const answer = await request("POST", path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const entry = JSON.parse(line);
      if (entry.error) throw new Refused([{ message: entry.error, line: null }]);
      onLine(entry);
    }
  }
}

/**
 * A function that runs `work` one at a time: what is asked for meanwhile waits, and only the last of it is done. So a
 * drag asks as often as the server answers, and old answers never overtake new ones.
 */
export function latest(work) {
  let busy = false;
  let waiting = null;
  return async function ask(...given) {
    if (busy) {
      waiting = given;
      return;
    }
    busy = true;
    try {
      await work(...given);
    } finally {
      busy = false;
      if (waiting) {
        const next = waiting;
        waiting = null;
        ask(...next);
      }
    }
  };
}

/** A function that runs `work` when it was not called for `milliseconds`. */
export function settled(milliseconds, work) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds, ...given);
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
