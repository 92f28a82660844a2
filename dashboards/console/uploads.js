// What left over time, and what was found in it: uploads over a limit, secrets.

import { get } from "./api.js";
import { bars, series, times } from "./charts.js";
import { empty, fill, h, table } from "./dom.js";
import { badges, chip, mark } from "./detail.js";
import { bytes, count, destination, moment, words } from "./format.js";
import { ranges, refresher } from "./overview.js";

const LINES = 100;

export function show(main, context) {
  const range = context.parameters.get("range") ?? "24h";
  const content = h("div", { class: "content" }, h("p", { class: "soft" }, "Loading…"));
  fill(main, h("header", { class: "title" }, h("h1", {}, "Uploads and secrets"), ranges(range, (other) => context.go("uploads", { range: other }))), content);
  const load = async () => {
    try {
      const told = await get("/api/overview", { range });
      const since = told.since;
      const [secrets, uploads] = await Promise.all(["secret", "large_upload"].map((finding) => get("/api/decisions", { finding, since, limit: LINES })));
      fill(content, charts(told), h("section", {}, h("h2", {}, "Secrets"), listed("Secrets", secrets, "secret")), h("section", {}, h("h2", {}, "Uploads over a limit"), listed("Uploads over a limit", uploads, "large_upload")));
    } catch (error) {
      fill(content, h("p", { class: "bad" }, error.message));
    }
  };
  load();
  return refresher(load, 5000);
}

function charts(told) {
  const when = times(told);
  const sent = (name) => series(told, name, name, ({ bytes }) => bytes[name]);
  return h("div", { class: "charts" },
    bars("Bytes sent", [sent("model"), sent("tool"), sent("unknown")], when, bytes),
    bars("Found", [series(told, "secrets", "deny", ({ secrets }) => secrets), series(told, "uploads over a limit", "ask", ({ large_uploads }) => large_uploads)], when, count));
}

const NONE = {
  secret: ["No secret was found", "Secrets are looked for in everything that leaves. Name your own in the policy: ", h("code", {}, 'known = ["dotenv:.env"]')],
  large_upload: ["No upload was over a limit", "The limits stand in the policy under ", h("code", {}, "[uploads]"), "."],
};

function listed(label, decisions, kind) {
  if (decisions.length === 0) return empty(...NONE[kind].map((part) => (part instanceof Node ? part.cloneNode(true) : part)));
  const about = (decision) => decision.findings.filter((finding) => finding.kind === kind).map((finding) =>
    kind === "secret" ? `${finding.detector} in ${finding.where}` : `${bytes(finding.bytes)} over ${bytes(finding.limit)}, ${words(finding.of)}`);
  return table(label, [
    { label: "Time", kind: "t", cell: ({ time }) => moment(time) },
    { label: "Action", cell: ({ action, outcome }) => mark(action, outcome) },
    { label: "Agent", kind: "who", cell: ({ agent }) => agent },
    { label: "Destination", cell: (decision) => [h("a", { class: "host", href: `#/decisions?filter=${encodeURIComponent(`finding:${kind} host:${decision.host}`)}` }, destination(decision)), " ", chip(decision.class)] },
    { label: "Found", cell: (decision) => [badges(decision.findings.filter((finding) => finding.kind === kind).slice(0, 1)), " ", about(decision).join("; ")] },
    { label: "Sent", kind: "n", cell: ({ request_bytes }) => bytes(request_bytes) },
  ], decisions);
}
