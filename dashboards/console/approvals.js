// What is held and waits for an answer.

import { answersToHeld } from "./answers.js";
import { getIfThere } from "./api.js";
import { empty, fill, h, table, unavailable } from "./dom.js";
import { ago, clock, count, moment } from "./format.js";

export function show(main, context) {
  const content = h("div", { class: "content" });
  fill(main, h("header", { class: "title" }, h("h1", {}, "Approvals")), content);
  let drawn = "";
  const draw = (told) => {
    // The same again would take the buttons from under somebody's finger.
    const now = JSON.stringify(told);
    if (now === drawn) return;
    drawn = now;
    fill(content, told ? page(told.approvals, load) : unavailable("Approvals are"));
  };
  const load = async () => {
    try {
      draw(await getIfThere("/api/approvals"));
      context.refresh();
    } catch (error) {
      fill(content, h("p", { class: "bad" }, error.message));
    }
  };
  load();
  return { approvals: draw, hello: load, happening: load };
}

function page(approvals, load) {
  const isPending = ({ state }) => !state || state === "pending";
  const pending = approvals.filter(isPending);
  const over = approvals.filter((approval) => !isPending(approval));
  return [
    pending.length === 0
      ? empty("Nothing waits for you", "Requests that a rule of action ", h("code", {}, "ask"), " holds stand here until somebody answers. ", h("a", { href: "#/policy" }, "The policy"), " says which those are.")
      : h("ul", { class: "held" }, pending.map((approval) => card(approval, load))),
    over.length > 0 && h("section", {}, h("h2", {}, "Lately"), answered(over)),
  ];
}

function card(approval, load) {
  return h("li", { class: "card" },
    h("p", { class: "host" }, h("bdi", {}, approval.destination)),
    h("p", { class: "request" }, h("code", {}, `${approval.method ?? ""} ${approval.path ?? ""}`)),
    others(approval),
    h("p", { class: "soft" }, `${approval.agent} asked ${ago(approval.asked)}; `, approval.requests > 1 && `${count(approval.requests)} requests; `, `it can be answered until ${clock(approval.expires)}.`, approval.rule && [" Rule: ", h("q", {}, approval.rule), "."]),
    answersToHeld(approval, load));
}

// "Once" is about what stands here, and nothing that is asked later.
function others({ others = [], unlisted = 0 }) {
  if (others.length === 0) return false;
  return h("details", {},
    h("summary", {}, `and ${count(others.length + unlisted)} other ${others.length + unlisted === 1 ? "path" : "paths"}, e.g. ${others[0].path ?? ""}`),
    h("ul", {}, others.map(({ method, path }) => h("li", { class: "request" }, h("code", {}, `${method ?? ""} ${path ?? ""}`)))));
}

function answered(approvals) {
  return table("Approvals that are over", [
    { label: "Asked", cell: ({ asked }) => moment(asked), kind: "t" },
    { label: "Agent", kind: "who", cell: ({ agent }) => agent },
    { label: "Destination", cell: ({ destination }) => h("bdi", { class: "host" }, destination) },
    { label: "Request", cell: ({ method, path }) => `${method ?? ""} ${path ?? ""}` },
    { label: "State", cell: ({ state }) => state },
  ], approvals);
}
