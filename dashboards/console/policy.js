// The policy in force: what it says, whom it met lately, and what it would say about a request.

import { get, post } from "./api.js";
import { button, empty, fill, h, lines, table, toast } from "./dom.js";
import { mark } from "./detail.js";
import { bytes, count, words } from "./format.js";

/** Decisions that are looked through for whom a rule met. */
const LATELY = 2000;

export function show(main) {
  const text = h("div", { class: "content" }, h("p", { class: "soft" }, "Loading…"));
  const met = h("div", {}, h("p", { class: "soft" }, "Loading…"));
  const reload = button("Read the files again", async () => {
    await post("/api/policy/reload");
    toast("The policy files were read again", "good");
    load();
  });
  const load = () => Promise.all([showText(text), showMet(met)]).catch((error) => toast(error.message, "bad"));
  fill(main,
    h("header", { class: "title" }, h("h1", {}, "Policy"), reload),
    h("section", {}, h("h2", {}, "Ask it"), asking()),
    h("section", {}, h("h2", {}, "Whom its rules met lately"), met),
    h("section", {}, h("h2", {}, "What it says"), text));
  load();
  return { happening: (event) => event.event === "policy_in_force" && load() };
}

async function showText(into) {
  const policy = await get("/api/policy");
  const numbered = h("pre", { class: "numbered", tabindex: "0", "aria-label": "The policy in force" });
  for (const line of String(policy.policy).trimEnd().split("\n")) {
    const row = h("span", { class: /^\s*(#|$)/.test(line) ? "soft" : /^\s*\[/.test(line) ? "strong" : "" });
    row.textContent = `${lines(line)}\n`;
    numbered.append(row);
  }
  fill(into, h("p", { class: "soft" }, "Mode ", h("strong", {}, policy.mode), ", all files as one. ", h("code", {}, policy.digest)), numbered);
}

async function showMet(into) {
  const decisions = await get("/api/decisions", { limit: LATELY });
  const rules = new Map();
  for (const decision of decisions) {
    const name = decision.rule ?? `default of class ${decision.class}`;
    const key = `${decision.action} ${name}`;
    const rule = rules.get(key) ?? { name, action: decision.action, requests: 0, agents: new Set(), hosts: new Set() };
    rule.requests += 1;
    rule.agents.add(decision.agent);
    if (decision.host) rule.hosts.add(decision.host);
    rules.set(key, rule);
  }
  if (rules.size === 0) return fill(into, empty("No request was decided yet", "Once there are some, this says which rule decided how many, for whom, and where to."));
  const few = (set) => [[...set].slice(0, 6).join(", "), set.size > 6 && h("small", {}, `and ${count(set.size - 6)} more`)];
  fill(into, h("p", { class: "soft" }, `Of the last ${count(decisions.length)} decisions.`), table("Rules and whom they met", [
    { label: "Action", cell: ({ action }) => mark(action) },
    { label: "Rule", cell: ({ name }) => h("q", {}, name) },
    { label: "Requests", kind: "n", cell: ({ requests }) => count(requests) },
    { label: "Agents", kind: "who", cell: ({ agents }) => few(agents) },
    { label: "Hosts", cell: ({ hosts }) => few(hosts) },
  ], [...rules.values()].sort((a, b) => b.requests - a.requests)));
}

function asking() {
  const input = (attributes) => h("input", { spellcheck: "false", autocomplete: "off", ...attributes });
  const url = input({ type: "text", required: true, placeholder: "https://api.github.com/repos/example/app", "aria-label": "URL", maxlength: "2000" });
  const method = input({ value: "GET", "aria-label": "Method", maxlength: "20", class: "short" });
  const agent = input({ placeholder: "anonymous", "aria-label": "Agent", maxlength: "64", class: "short" });
  const said = h("div", { "aria-live": "polite" });
  const form = h("form", { class: "filter" }, url, method, agent, h("button", { type: "submit" }, "Explain"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      fill(said, answer(await get("/api/explain", { url: url.value.trim(), method: method.value.trim(), agent: agent.value.trim() })));
    } catch (error) {
      fill(said, h("p", { class: "bad" }, error.message));
    }
  });
  return [form, said];
}

function answer(told) {
  const rules = told.matches.map((match) => h("li", { class: match.rule === told.rule ? "wins" : "" }, mark(match.action), " ", h("q", {}, match.rule), h("small", {}, `${match.file}:${match.line}`)));
  return h("div", { class: "card" },
    h("p", {}, mark(told.action), ` ${words(told.reason)}; class ${told.class}${told.service ? `, service ${told.service}` : ""}. One request may send ${bytes(told.limits.request_block)}.`),
    rules.length > 0 ? h("ol", { class: "steps" }, rules) : h("p", { class: "soft" }, "No rule names it; the default of its class decides."),
    told.allow && h("p", {}, "To allow it: ", h("code", {}, told.allow)));
}
