// The queue of merges and its history, as the server tells it.

import * as api from "./api.js";
import { announce, h } from "./dom.js";
import { duration, size } from "./format.js";
import * as store from "./store.js";
import { typed } from "./sync.js";

const WORDS = { waiting: "waiting", running: "running", stopping: "stopping", stopped: "stopped", done: "done", failed: "failed" };

export function merges() {
  const list = h("ol", { class: "jobs" });
  const none = h("p", { class: "faint" }, "Merges that you start stand here, with their progress. One runs at a time; each can be stopped and go on later, after a restart too.");
  const cards = new Map();
  const states = new Map();

  function draw() {
    const jobs = [...store.get("jobs")].reverse();
    none.hidden = jobs.length > 0;
    for (const [id, card] of cards) {
      if (!jobs.some((job) => job.id === id)) {
        card.element.remove();
        cards.delete(id);
      }
    }
    jobs.forEach((job, place) => {
      if (!cards.has(job.id)) cards.set(job.id, card(job));
      const { element, show } = cards.get(job.id);
      if (list.children[place] !== element) list.insertBefore(element, list.children[place] ?? null);
      show(job);
      if (states.has(job.id) && states.get(job.id) !== job.state) announce(`${nameOf(job)}: ${WORDS[job.state]}`);
      states.set(job.id, job.state);
    });
  }

  store.watch(["jobs"], draw);
  return h("div", {}, none, list);
}

const nameOf = (job) => job.out.split(/[\\/]/).at(-1);

function card(job) {
  const badge = h("span", { class: "badge" });
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Progress of ${nameOf(job)}` });
  const line = h("p", { class: "job-line" });
  const trouble = h("p", { class: "problem", role: "alert" });
  const button = (text, act) => h("button", { type: "button", class: "quiet", onclick: () => carefully(act) }, text);
  const stop = button("Stop", () => api.post(`/api/jobs/${job.id}/stop`));
  const resume = button("Resume", () => api.post(`/api/jobs/${job.id}/resume`));
  const open = button("Open recipe", () => typed(job.recipe));
  const drop = button("Remove", () => begun && !confirm(`Discard what is written of ${nameOf(job)}? It can then not go on.`) ? null : api.remove(`/api/jobs/${job.id}`));
  let begun = false;
  const element = h("li", { class: "job" },
    h("div", { class: "job-head" }, h("strong", { title: job.out }, nameOf(job)), badge, h("time", { class: "faint" }, new Date(job.created * 1000).toLocaleString()), h("span", { class: "row end" }, stop, resume, open, drop)),
    bar, line, trouble);

  async function carefully(act) {
    try {
      await act();
      trouble.textContent = "";
    } catch (error) {
      trouble.textContent = error.message;
    }
  }

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
  }

  return { element, show };
}

/** One line about how far it is. */
function told(job) {
  const done = `${size(job.written)} of ${size(job.total)}`;
  switch (job.state) {
    case "running":
      if (job.phase === "planning") return "reading headers";
      if (job.phase === "saving") return "making it durable";
      if (job.rate === 0) return "starting; kernels are compiled when they are first used";
      return [done, `${size(Math.round(job.rate))}/s`, job.left === null ? "" : `${duration(job.left)} left`].filter(Boolean).join(" · ");
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
