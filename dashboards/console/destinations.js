// Where requests went, or would have: since when, for whom, how much.

import { get } from "./api.js";
import { empty, fill, h, table } from "./dom.js";
import { chip } from "./detail.js";
import { ago, bytes, count, moment } from "./format.js";
import { ranges, refresher } from "./overview.js";

export function show(main, context) {
  const range = context.parameters.get("range") ?? "24h";
  const content = h("div", { class: "content" }, h("p", { class: "soft" }, "Loading…"));
  const search = h("input", { type: "search", placeholder: "part of a host", "aria-label": "Part of a host", spellcheck: "false" });
  let told = [];
  const draw = () => {
    const wanted = search.value.trim().toLowerCase();
    const rows = told.filter(({ host }) => host.includes(wanted));
    fill(content, rows.length > 0 ? listed(rows) : none(told.length > 0));
  };
  search.addEventListener("input", draw);
  const title = h("header", { class: "title" }, h("h1", {}, "Destinations"), search, ranges(range, (other) => context.go("destinations", { range: other })));
  fill(main, title, content);
  const load = async () => {
    try {
      told = (await get("/api/destinations", { range })).destinations;
      draw();
    } catch (error) {
      fill(content, h("p", { class: "bad" }, error.message));
    }
  };
  load();
  return refresher(load, 5000);
}

const none = (filtered) =>
  filtered
    ? empty("No host has this in its name", "Take a letter away.")
    : empty("No request ended within this time", "Choose a longer time above, or start an agent: ", h("code", {}, "outgate run -- claude"));

function listed(destinations) {
  const filter = (text) => `#/decisions?filter=${encodeURIComponent(text)}`;
  return table("Destinations", [
    { label: "Host", cell: ({ host, lookalike }) => [h("a", { class: "host", href: filter(`host:${host}`) }, host), lookalike && h("span", { class: "badge lookalike_domain" }, `looks like ${lookalike}`)] },
    { label: "Class", cell: ({ class: name, service }) => [chip(name), service && h("small", {}, service)] },
    { label: "Requests", kind: "n", cell: ({ requests }) => count(requests) },
    { label: "Denied", kind: "n", cell: ({ refused }) => (refused > 0 ? h("span", { class: "mark deny" }, count(refused)) : "0") },
    { label: "Sent", kind: "n", cell: ({ bytes: sent }) => bytes(sent) },
    { label: "Agents", kind: "who", cell: ({ agents }) => agents.join(", ") },
    { label: "First seen", kind: "t", cell: ({ first, first_agent }) => [h("span", { title: moment(first) }, ago(first)), h("small", {}, `by ${first_agent}`)] },
    { label: "Last", kind: "t", cell: ({ last }) => h("span", { title: moment(last) }, ago(last)) },
  ], destinations);
}
