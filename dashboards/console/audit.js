// The record itself: whether it is intact, how it is kept, whether it keeps up.

import { get } from "./api.js";
import { fill, h } from "./dom.js";
import { definitions } from "./detail.js";
import { ago, bytes, count, lasts, moment } from "./format.js";

export function show(main) {
  const content = h("div", { class: "content" }, h("p", { class: "soft" }, "Loading…"));
  fill(main, h("header", { class: "title" }, h("h1", {}, "Audit")), content);
  const load = async () => {
    try {
      const [audit, status] = await Promise.all([get("/api/audit"), get("/api/status")]);
      fill(content, verdict(audit), h("div", { class: "cards" }, chain(audit), keeping(audit.kept), writing(audit), gateway(status)));
    } catch (error) {
      fill(content, h("p", { class: "bad" }, error.message));
    }
  };
  load();
  const timer = setInterval(load, 5000);
  return { close: () => clearInterval(timer) };
}

function verdict({ tail, problem, checked }) {
  if (problem) return h("p", { class: "verdict bad" }, `✕ Nothing can be recorded now: ${problem}`);
  if (!tail.intact) return h("p", { class: "verdict bad" }, `✕ The record is not intact: ${tail.problem}. Run `, h("code", {}, "outgate audit verify"), ".");
  if (tail.records === 0) return h("p", { class: "verdict" }, "Nothing is on record yet.");
  return h("p", { class: "verdict" }, h("span", { class: "mark allow" }, "✓"), ` The last ${count(tail.records)} records are intact`, h("small", {}, `looked at ${ago(checked)}; `, h("code", {}, "outgate audit verify"), " looks at all of them"));
}

const card = (title, rows) => h("section", { class: "card" }, h("h2", {}, title), definitions(rows));

const chain = ({ records, begins_after, tail }) => card("Chain", [
  ["Records", count(records)],
  ["Begins after", begins_after > 0 ? `record ${count(begins_after)}; what was before was dropped, a signed stub stands for it` : null],
  ["Last checkpoint", tail.last_checkpoint ? `of record ${count(tail.last_checkpoint.through)}, ${ago(tail.last_checkpoint.time)}` : "none yet"],
  ["Signed with", tail.last_checkpoint && h("code", {}, tail.last_checkpoint.key)],
]);

const keeping = (kept) => card("Kept", [
  ["A commit survives", kept.durability === "power" ? "the death of the machine" : "the death of the process"],
  ["For", kept.retention_seconds !== undefined && lasts(kept.retention_seconds)],
  ["At most", kept.max_bytes !== undefined && bytes(kept.max_bytes)],
  ["Of a body", kept.excerpt_bytes === 0 ? "nothing" : kept.excerpt_bytes && `the first ${bytes(kept.excerpt_bytes)}, redacted`],
  ["Signed every", kept.checkpoint_records && `${count(kept.checkpoint_records)} records, or ${lasts(kept.checkpoint_seconds)}`],
]);

const writing = ({ commits, failures, queue }) => card("Writing", [
  ["Waiting now", count(queue)],
  ["Commits", count(commits)],
  ["Failed", failures > 0 ? h("span", { class: "bad" }, count(failures)) : "0"],
]);

const gateway = (status) => card("Gateway", [
  ["Version", status.version],
  ["Runs since", moment(status.started)],
  ["Mode", status.mode],
  ["Proxy", status.listen.join(", ")],
  ["Data folder", h("code", {}, status.data_dir)],
  ["Policy", h("code", {}, status.policy)],
]);
