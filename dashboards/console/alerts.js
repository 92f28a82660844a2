// Alerts: what was worth telling somebody, and whether they were told.

import { getIfThere } from "./api.js";
import { empty, fill, h, table, unavailable } from "./dom.js";
import { count, moment, words } from "./format.js";
import { refresher } from "./overview.js";

export function show(main) {
  const content = h("div", { class: "content" }, h("p", { class: "soft" }, "Loading…"));
  fill(main, h("header", { class: "title" }, h("h1", {}, "Alerts")), content);
  const load = async () => {
    try {
      const told = await getIfThere("/api/alerts");
      fill(content, told ? page(told) : unavailable("Alerts are"));
    } catch (error) {
      fill(content, h("p", { class: "bad" }, error.message));
    }
  };
  load();
  return refresher(load);
}

function page({ alerts, dropped, failed }) {
  const lost = (number, what) => number > 0 && h("p", { class: "note bad" }, `${count(number)} ${what}`);
  return [
    lost(failed, "could not be sent; the log of the gateway says why"),
    lost(dropped, "were dropped because too many waited"),
    alerts.length > 0 ? listed(alerts) : empty("No alerts", "Large uploads, secrets, refusals and look-alikes stand here. To be told elsewhere, put ", h("code", {}, "[[alerts.webhook]]"), " into ", h("code", {}, "outgate.toml"), "."),
  ];
}

function listed(alerts) {
  const sent = (value) => (value === true ? "sent" : value === false ? "not sent" : value ?? "–");
  return table("Alerts", [
    { label: "Time", kind: "t", cell: ({ time }) => moment(time) },
    { label: "Kind", cell: ({ kind }) => h("span", { class: `badge ${kind}` }, words(kind)) },
    { label: "What", cell: ({ text, count: times }) => [text, times > 1 && h("small", {}, `${count(times)} times`)] },
    { label: "Agent", kind: "who", cell: ({ agent }) => agent ?? "–" },
    { label: "Host", cell: ({ host }) => (host ? h("a", { class: "host", href: `#/decisions?filter=${encodeURIComponent(`host:${host}`)}` }, host) : "–") },
    { label: "Told", cell: ({ sent: value }) => sent(value) },
  ], alerts);
}
