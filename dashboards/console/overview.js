// At a glance: what was asked, what left, what was refused, what waits for an answer.

import { answersTo, answersToHeld, isAnswerable } from "./answers.js";
import { get, getIfThere } from "./api.js";
import { bars, series, times } from "./charts.js";
import { empty, fill, h } from "./dom.js";
import { chip } from "./detail.js";
import { ago, bytes, count, destination, words } from "./format.js";

const RANGES = ["1h", "6h", "24h", "7d", "30d"];

/** A choice of times; `use` is told which. */
export function ranges(now, use) {
  const options = RANGES.map((range) => {
    const input = h("input", { type: "radio", name: "range", value: range, checked: range === now });
    input.addEventListener("change", () => use(range));
    return h("label", {}, input, h("span", {}, range));
  });
  return h("fieldset", { class: "ranges" }, h("legend", { class: "hidden" }, "Time"), options);
}

/** Somebody is about to press something that a new drawing would take away. */
const isBusy = () => document.querySelector("main .content :focus, main .answers:hover, dialog") !== null;

/** Loads anew when something happened, but not all the time, nor under somebody's fingers. */
export function refresher(load, pause = 2500) {
  let timer = null;
  const look = () => {
    timer = null;
    if (isBusy()) soon();
    else load();
  };
  const soon = () => {
    timer ??= setTimeout(look, pause);
  };
  return { decisions: soon, happening: soon, reload: soon, hello: soon, close: () => clearTimeout(timer) };
}

export function show(main, context) {
  const range = context.parameters.get("range") ?? "24h";
  const content = h("div", { class: "content" }, h("p", { class: "soft" }, "Loading…"));
  fill(main, h("header", { class: "title" }, h("h1", {}, "Overview"), ranges(range, (other) => context.go("overview", { range: other }))), content);
  const load = async () => {
    const [told, approvals, alerts, audit] = await Promise.all([
      get("/api/overview", { range }), getIfThere("/api/approvals"), getIfThere("/api/alerts"), get("/api/audit"),
    ]);
    fill(content, tiles(told, approvals, audit), held(approvals, load), charts(told), h("div", { class: "cards" }, refused(told), agents(told), alarms(alerts)));
  };
  const loading = () => load().catch((error) => fill(content, h("p", { class: "bad" }, error.message)));
  loading();
  const live = refresher(loading);
  return { ...live, approvals: live.decisions };
}

const sum = (told, value) => told.parts.reduce((total, part) => total + (value(part) ?? 0), 0);

function tiles(told, approvals, audit) {
  const requests = sum(told, ({ requests }) => (requests.allow ?? 0) + (requests.ask ?? 0) + (requests.deny ?? 0));
  const denied = sum(told, ({ requests }) => requests.deny);
  const waiting = approvals?.approvals.filter(({ state }) => !state || state === "pending").length;
  const secrets = sum(told, ({ secrets }) => secrets);
  const sent = (name) => sum(told, ({ bytes }) => bytes[name]);
  const tile = (label, value, href, kind = "", note = "") =>
    h("li", { class: kind }, h("a", { href }, h("strong", {}, value), h("span", {}, label), note && h("small", {}, note)));
  const intact = audit.tail.intact && !audit.problem;
  return h("ul", { class: "tiles" },
    tile("requests", count(requests), "#/decisions"),
    tile("denied", count(denied), "#/decisions?filter=action:deny"),
    tile("sent to models", bytes(sent("model")), "#/decisions?filter=class:model"),
    tile("sent to tools", bytes(sent("tool")), "#/decisions?filter=class:tool"),
    tile("sent to unknown", bytes(sent("unknown")), "#/decisions?filter=class:unknown"),
    tile("secrets found", count(secrets), "#/uploads", secrets > 0 ? "alarm" : ""),
    approvals && tile("waiting for you", count(waiting), "#/approvals", waiting > 0 ? "alarm" : ""),
    tile(intact ? "record intact" : "record not intact", intact ? "✓" : "✕", "#/audit", intact ? "" : "alarm", `${count(audit.records)} records`),
  );
}

function held(approvals, load) {
  const waiting = approvals?.approvals.filter(({ state }) => !state || state === "pending") ?? [];
  if (waiting.length === 0) return null;
  const row = (approval) => h("li", {}, h("p", {}, h("bdi", { class: "host" }, approval.destination), h("small", {}, `${approval.agent}, ${ago(approval.asked)}, ${approval.method ?? ""} ${approval.path ?? ""}`)), answersToHeld(approval, load));
  return h("section", { class: "card wide alarm" }, h("h2", {}, "Waiting for you"), h("ul", { class: "rows" }, waiting.slice(0, 5).map(row)));
}

function charts(told) {
  const when = times(told);
  const bytesOf = (name) => series(told, name, name, ({ bytes }) => bytes[name]);
  return h("div", { class: "charts" },
    bars("Requests", [
      series(told, "allowed", "allow", ({ requests }) => requests.allow),
      series(told, "denied", "deny", ({ requests }) => (requests.deny ?? 0) + (requests.ask ?? 0)),
    ], when, count),
    bars("Bytes sent", [bytesOf("model"), bytesOf("tool"), bytesOf("unknown")], when, bytes),
    told.cut && h("p", { class: "note" }, "There is more in this time than is added up for one answer; its beginning is missing."));
}

function refused(told) {
  const row = ({ requests, last }) =>
    h("li", {},
      h("p", {}, h("a", { class: "host", href: `#/decisions?filter=${encodeURIComponent(`host:${last.host}`)}` }, destination(last)), " ", chip(last.class),
        h("small", {}, `${words(last.reason)}, ${count(requests)} time${requests === 1 ? "" : "s"}, last ${ago(last.time)} by ${last.agent}`)),
      isAnswerable(last) && answersTo(last));
  const content = told.refused.length > 0 ? h("ul", { class: "rows" }, told.refused.map(row)) : empty("Nothing was refused", "What is refused stands here, with what would allow it beside it.");
  return h("section", { class: "card" }, h("h2", {}, "Refused most"), content);
}

function agents(told) {
  const row = (agent) =>
    h("li", {}, h("p", {}, h("a", { href: `#/decisions?filter=agent:${encodeURIComponent(agent.agent)}` }, agent.agent), h("small", {}, `${count(agent.requests)} requests, ${count(agent.refused)} denied`)), h("strong", { class: "n" }, bytes(agent.bytes)));
  const content = told.agents.length > 0 ? h("ul", { class: "rows" }, told.agents.map(row)) : empty("No agent has asked yet", "Start one: ", h("code", {}, "outgate run -- claude"));
  return h("section", { class: "card" }, h("h2", {}, "Who sent most"), content);
}

function alarms(told) {
  if (!told) return null;
  const row = (alert) => h("li", {}, h("p", {}, h("span", { class: "badge" }, words(alert.kind)), " ", alert.text, h("small", {}, ago(alert.time))));
  const content = told.alerts.length > 0 ? h("ul", { class: "rows" }, told.alerts.slice(0, 6).map(row)) : empty("No alerts", "Large uploads, secrets and look-alikes would stand here.");
  return h("section", { class: "card" }, h("h2", {}, h("a", { href: "#/alerts" }, "Alerts")), content);
}
