// One decision: what was decided and why, rule by rule, what was found, what became of it.

import { answersTo, isAnswerable } from "./answers.js";
import { get } from "./api.js";
import { button, fill, h, lines, toast } from "./dom.js";
import { address, bytes, count, destination, moment, words } from "./format.js";

/** The mark of an action: a sign and a word, coloured besides. */
export const mark = (action, outcome) => {
  const said = { allow: "allowed", deny: "denied", ask: "held" }[action] ?? action;
  const signs = { allow: "✓", deny: "✕", ask: "?" };
  return h("span", { class: `mark ${action}`, "aria-label": outcome === "cut" ? `${said}, cut` : said }, h("span", { "aria-hidden": "true" }, signs[action] ?? "·"), ` ${said}`);
};

/** The class of a destination. */
export const chip = (name) => h("span", { class: `chip ${name}` }, name);

/** What is shown of findings in a row. */
export const badges = (findings) => findings.map((finding) => h("span", { class: `badge ${finding.kind}` }, NAMES[finding.kind] ?? words(finding.kind)));

const NAMES = {
  large_upload: "large upload", lookalike_domain: "look-alike", encoded_data_in_name: "data in name",
  credential_used: "credential", model_shaped: "model-shaped", mcp_shaped: "MCP-shaped", git_push: "push", dns_over_https: "DoH",
};

const REASONS = {
  allowed_by_rule: "A rule allows it.",
  allowed_by_default: "No rule names it, and the default of its class allows it.",
  allowed_by_approval: "Somebody approved it.",
  allowed_by_observe: "It would have been stopped, but the policy only observes.",
  denied_by_rule: "A rule denies it.",
  unknown_destination: "Nobody has named this destination: it is on no list.",
  denied_by_default: "No rule names it, and the default of its class denies it.",
  approval_denied: "Somebody said no.",
  approval_timeout: "Nobody answered in time.",
  approval_unattended: "It wants an answer, and the gateway runs unattended.",
  upload_too_large: "The request alone is larger than its limit.",
  upload_window_exceeded: "Together with what was sent lately it is more than the window allows.",
  secret_found: "It holds a secret that does not belong there. Its bytes have not left.",
  address_forbidden: "The name leads to an address that may not be dialled.",
  authority_mismatch: "Tunnel, certificate name and Host do not say the same.",
  port_refused: "The host is allowed, but not on this port.",
};

/** Fills a pane with a decision. `on.filter(text)` filters by something, `on.close()` closes the pane. */
export async function showDetail(pane, row, on) {
  fill(pane, head(row, on), h("p", { class: "soft" }, "Loading…"));
  let decision = row;
  try {
    decision = await get(`/api/decisions/${row.id}`);
  } catch (error) {
    toast(error.message, "bad");
  }
  if (pane.dataset.id !== row.id) return;
  const why = h("div", { class: "why" }, h("p", { class: "soft" }, "Asking the policy…"));
  fill(pane, head(decision, on), verdict(decision), section("Why, rule by rule", why), found(decision), facts(decision, on), body(decision), chain(decision));
  await explain(why, decision);
}

function head(decision, on) {
  return h(
    "header", {},
    h("p", {}, mark(decision.action, decision.outcome), " ", chip(decision.class), " ", decision.service && h("span", { class: "soft" }, decision.service)),
    h("h2", {}, destination(decision)),
    button("Close", () => on.close(), { class: "quiet close", "aria-label": "Close the decision" }),
  );
}

function verdict(decision) {
  const said = REASONS[decision.reason] ?? `${words(decision.reason)}.`;
  return [
    h("p", { class: "request" }, h("code", {}, `${decision.method ?? decision.kind} ${address(decision)}`)),
    h("p", {}, said, " ", decision.rule && ["Rule: ", h("q", {}, decision.rule), "."]),
    decision.would && h("p", { class: "soft" }, `Enforced it would be: ${decision.would}, ${words(decision.would_reason)}.`),
    isAnswerable(decision) && h("div", { class: "offer" }, h("h3", {}, "Allow it?"), answersTo(decision)),
  ];
}

const section = (title, ...content) => h("section", {}, h("h3", {}, title), content);

async function explain(into, decision) {
  if (!decision.host || !["http", "https"].includes(decision.scheme)) {
    return fill(into, h("p", { class: "soft" }, "What had no readable URL cannot be asked about again."));
  }
  // What was redacted is not what was asked; the query takes no part in a decision anyway.
  const url = address(decision).split("?")[0];
  try {
    const told = await get("/api/explain", { url, method: decision.method ?? "GET", agent: decision.agent, bytes: decision.request_bytes ?? 0 });
    fill(into, steps(told, decision));
  } catch (error) {
    fill(into, h("p", { class: "soft" }, error.message));
  }
}

function steps(told, decision) {
  const rules = told.matches.map((match) =>
    h("li", { class: match.rule === told.rule ? "wins" : "" },
      mark(match.action), " ", h("q", {}, match.rule), match.observe && " (only observes)",
      match.rule === told.rule && h("span", { class: "soft" }, " decides"),
      h("small", {}, `${match.file}:${match.line}`)),
  );
  const fallback = h("li", { class: "wins" }, mark(told.action), ` the default of class ${told.class}`, h("span", { class: "soft" }, " decides"));
  const limits = told.limits;
  return [
    told.policy !== decision.policy && h("p", { class: "note" }, "The policy has changed since. This is what the one in force says now."),
    h("ol", { class: "steps" }, rules, !told.rule && fallback),
    h("p", { class: "soft" }, `In the end: ${told.action}, ${words(told.reason)}. One request may send ${bytes(limits.request_block)}, and is noted over ${bytes(limits.request_alert)}.`),
    told.allow && h("p", {}, "On the command line: ", h("code", {}, told.allow)),
  ];
}

function found(decision) {
  if (decision.findings.length === 0) return null;
  const about = (finding) => {
    switch (finding.kind) {
      case "secret": return `${finding.detector}, ${finding.count} time${finding.count === 1 ? "" : "s"}, in ${finding.where}`;
      case "credential_used": return `${finding.detector}, in ${finding.where}, where it belongs`;
      case "large_upload": return `${bytes(finding.bytes)}, over ${bytes(finding.limit)} (${words(finding.of)})`;
      case "lookalike_domain": return `looks like ${finding.of}`;
      case "model_shaped": return `spoken to as ${finding.api}`;
      default: return finding.encoding ?? "";
    }
  };
  return section("Found", h("ul", { class: "plain" }, decision.findings.map((finding) => h("li", {}, badges([finding]), " ", about(finding)))));
}

function facts(decision, on) {
  const link = (text, filter) => button(text, () => on.filter(filter), { class: "link", title: `Show only ${filter}` });
  const ms = decision.ms;
  const rows = [
    ["When", moment(decision.time)],
    ["Agent", link(decision.agent, `agent:${decision.agent}`)],
    ["Owner", decision.owner],
    ["Session", decision.session && link(decision.session, `session:${decision.session}`)],
    ["Host", decision.host && link(decision.host, `host:${decision.host}`)],
    ["Domain", decision.domain],
    ["Outcome", decision.outcome ? `${decision.outcome}${decision.status ? `, ${decision.status}` : ""}` : "under way"],
    ["First decided", decision.decided],
    ["Sent", bytes(decision.request_bytes)],
    ["Received", bytes(decision.response_bytes)],
    ["Took", ms && `${ms.total.toFixed(1)} ms${ms.held ? `, held ${(ms.held / 1000).toFixed(1)} s` : ""}`],
    ["Upstream", decision.upstream],
    ["Protocol", decision.http_version && `HTTP/${decision.http_version}`],
    ["Mode", decision.mode],
  ];
  return section("Facts", definitions(rows));
}

/** Names and what they stand for; without those that stand for nothing. */
export const definitions = (rows) =>
  h("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

function body(decision) {
  if (!decision.body) return null;
  const text = h("pre", { tabindex: "0", "aria-label": "Beginning of the body" });
  text.textContent = lines(decision.body.excerpt);
  return section("Body, redacted", h("p", { class: "soft" }, decision.body.content_type ?? "no type", decision.body.truncated && ", goes on"), text);
}

const chain = (decision) =>
  section("On record", definitions([
    ["Decision", h("code", {}, decision.id)],
    ["Record", `${count(decision.seq)}${decision.outcome_seq ? `, its outcome ${count(decision.outcome_seq)}` : ""}`],
    ["Hash", h("code", {}, decision.hash)],
    ["Policy", h("code", {}, decision.policy)],
  ]));
