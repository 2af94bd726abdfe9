// The queue of merges and its history, as the server tells it.

import * as api from "./api.js";
import { cards } from "./card.js";
import { announce, h } from "./dom.js";
import { duration, percent, size } from "./format.js";
import * as store from "./store.js";
import { typed } from "./sync.js";

const WORDS = { waiting: "waiting", running: "running", stopping: "stopping", stopped: "stopped", done: "done", failed: "failed" };

export function merges() {
  const list = h("ol", { class: "jobs" });
  const none = h("p", { class: "faint" }, "Merges that you start stand here, with their progress. One runs at a time; each can be stopped and go on later, after a restart too.");
  const shown = new Map();
  const sheet = cards();
  const states = new Map();

  function draw() {
    const jobs = [...store.get("jobs")].reverse();
    none.hidden = jobs.length > 0;
    for (const [id, { element }] of shown) {
      if (!jobs.some((job) => job.id === id)) {
        element.remove();
        shown.delete(id);
      }
    }
    jobs.forEach((job, place) => {
      if (!shown.has(job.id)) shown.set(job.id, entry(job, sheet));
      const { element, show } = shown.get(job.id);
      if (list.children[place] !== element) list.insertBefore(element, list.children[place] ?? null);
      show(job);
      if (states.has(job.id) && states.get(job.id) !== job.state) announce(`${nameOf(job)}: ${WORDS[job.state]}`);
      states.set(job.id, job.state);
    });
  }

  store.watch(["jobs"], draw);
  return h("div", {}, none, list, sheet.element);
}

const nameOf = (job) => job.out.split(/[\\/]/).at(-1);

/** One merge of the list. */
function entry(job, sheet) {
  const badge = h("span", { class: "badge" });
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Progress of ${nameOf(job)}` });
  const line = h("p", { class: "job-line" });
  const verdict = h("p", { class: "job-line", role: "status" });
  const trouble = h("p", { class: "problem", role: "alert" });
  const button = (text, act) => h("button", { type: "button", class: "quiet", onclick: () => carefully(act) }, text);
  const stop = button("Stop", () => api.post(`/api/jobs/${job.id}/stop`));
  const resume = button("Resume", () => api.post(`/api/jobs/${job.id}/resume`));
  const read = button("Card", () => sheet.open(job, nameOf(job)));
  const check = button("Verify", verify);
  const open = button("Open recipe", () => typed(job.recipe));
  const drop = button("Remove", () => begun && !confirm(`Discard what is written of ${nameOf(job)}? It can then not go on.`) ? null : api.remove(`/api/jobs/${job.id}`));
  let begun = false;
  const element = h("li", { class: "job" },
    h("div", { class: "job-head" }, h("strong", { title: job.out }, nameOf(job)), badge, h("time", { class: "faint" }, new Date(job.created * 1000).toLocaleString()), h("span", { class: "row end" }, stop, resume, read, check, open, drop)),
    bar, line, verdict, trouble);

  async function carefully(act) {
    try {
      await act();
      trouble.textContent = "";
    } catch (error) {
      trouble.textContent = error.message;
    }
  }

  /** Read the result again, and compare every tensor with the digest that was noted when it was written. */
  async function verify() {
    check.disabled = true;
    try {
      await api.stream(`/api/jobs/${job.id}/verify`, undefined, ({ read: here, total, tensors, differing }) => {
        if (total) verdict.textContent = `reading it again, ${percent(Math.round((100 * here) / total) / 100)}`;
        if (differing) verdict.replaceChildren(...found(tensors, differing));
      });
    } catch (error) {
      verdict.textContent = "";
      throw error;
    } finally {
      check.disabled = false;
    }
  }

  const found = (tensors, differing) => (differing.length === 0
    ? [h("span", { class: "good" }, `verified: all ${tensors} tensors are as they were written`)]
    : differing.slice(0, 5).concat(differing.length > 5 ? [`and ${differing.length - 5} more`] : []).map((text) => h("span", { class: "problem" }, text)));

  function show(now) {
    badge.textContent = WORDS[now.state];
    badge.className = `badge ${now.state}`;
    const busy = now.state === "running" || now.state === "stopping";
    bar.hidden = now.state === "done" || now.total === 0;
    bar.value = now.total > 0 ? now.written / now.total : 0;
    line.textContent = told(now);
    line.classList.toggle("problem", now.state === "failed");
    stop.hidden = !(now.state === "running" || now.state === "waiting");
    resume.hidden = !(now.state === "stopped" || now.state === "failed");
    begun = now.total > 0 && (now.state === "stopped" || now.state === "failed");
    drop.textContent = begun ? "Discard" : "Remove";
    drop.hidden = busy;
    read.hidden = check.hidden = now.state !== "done";
    if (now.state !== "done") verdict.textContent = "";
  }

  return { element, show };
}

/** One line about how far it is. */
function told(job) {
  const done = `${size(job.written)} of ${size(job.total)}`;
  const place = job.tensor ? `tensor ${job.made} of ${job.tensors}, ${job.tensor}` : "";
  switch (job.state) {
    case "running":
      if (job.phase === "planning") return "reading headers";
      if (job.phase === "saving") return "making it durable";
      if (job.rate === 0) return "starting; kernels are compiled when they are first used";
      return [done, `${size(Math.round(job.rate))}/s`, job.left === null ? "" : `${duration(job.left)} left`, place].filter(Boolean).join(" · ");
    case "stopping":
      return "stopping after the blocks in hand";
    case "stopped":
      return job.total > 0 ? `${done} are written; Resume goes on from there` : "not begun";
    case "done":
      return `${size(job.written)} in ${duration(job.seconds)}`;
    case "failed":
      return job.message;
    default:
      return "waits for the merge before it";
  }
}
