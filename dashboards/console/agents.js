// Agents: registered, given new tokens, revoked. A token is shown once.

import { get, post } from "./api.js";
import { ask, button, empty, fill, h, table, tell, toast } from "./dom.js";
import { ago, moment } from "./format.js";
import { refresher } from "./overview.js";

const DAY = 86_400_000;

export function show(main) {
  const content = h("div", { class: "content" }, h("p", { class: "soft" }, "Loading…"));
  const load = async () => {
    try {
      const agents = await get("/api/agents");
      fill(content, agents.length > 0 ? listed(agents, load) : none());
    } catch (error) {
      fill(content, h("p", { class: "bad" }, error.message));
    }
  };
  const add = button("Add an agent", () => added(load), { class: "primary" });
  fill(main, h("header", { class: "title" }, h("h1", {}, "Agents"), add), content);
  load();
  return { ...refresher(load), decisions: () => {} };
}

const none = () =>
  empty("No agent is registered", "Requests without credentials belong to the agent ", h("code", {}, "anonymous"), ". Add one above, and it has a name, an owner and a token of its own.");

function listed(agents, load) {
  const kind = { active: "mark allow", expired: "soft", revoked: "mark deny" };
  const actions = (agent) =>
    agent.status === "revoked" ? null : h("span", { class: "answers" },
      button("New token", () => rotated(agent, load), { class: "small", "aria-label": `New token for ${agent.agent}` }),
      button("Revoke", () => revoked(agent, load), { class: "small no", "aria-label": `Revoke ${agent.agent}` }));
  return table("Agents", [
    { label: "Agent", kind: "who", cell: ({ agent }) => h("a", { href: `#/decisions?filter=agent:${encodeURIComponent(agent)}` }, agent) },
    { label: "Owner", cell: ({ owner }) => owner },
    { label: "For", cell: ({ purpose }) => purpose ?? "–" },
    { label: "Since", kind: "t", cell: ({ created }) => h("span", { title: moment(created) }, ago(created)) },
    { label: "Until", kind: "t", cell: ({ expires }) => (expires ? h("span", { title: moment(expires) }, ago(expires)) : "no end") },
    { label: "Status", cell: ({ status }) => h("span", { class: kind[status] }, status) },
    { label: "", cell: actions },
  ], agents);
}

async function added(load) {
  const field = (label, attributes) => {
    const input = h("input", { spellcheck: "false", autocomplete: "off", ...attributes });
    return { input, row: h("label", { class: "field" }, h("span", {}, label), input) };
  };
  const name = field("Name", { required: true, maxlength: "64", pattern: "[a-z0-9][a-z0-9._\\-]*", placeholder: "claude", autofocus: true });
  const owner = field("Owner, who answers for it", { required: true, maxlength: "200", placeholder: "ana@example.com" });
  const purpose = field("What it is for", { maxlength: "200" });
  const days = field("Days until it expires; empty for no end", { type: "number", min: "1", max: "3650" });
  if (!(await ask("Add an agent", [name.row, owner.row, purpose.row, days.row], "Add"))) return;
  const expires = days.input.value ? new Date(Date.now() + Number(days.input.value) * DAY).toISOString() : null;
  const told = await post("/api/agents", { name: name.input.value.trim(), owner: owner.input.value, purpose: purpose.input.value || null, expires });
  issued(told);
  load();
}

async function rotated(agent, load) {
  const content = h("p", {}, "The token it has now is taken for ten minutes more, so that what runs can be given the new one.");
  if (!(await ask(`A new token for ${agent.agent}?`, content, "New token"))) return;
  issued(await post(`/api/agents/${encodeURIComponent(agent.agent)}/rotate`, { by: "console" }));
  load();
}

async function revoked(agent, load) {
  const content = h("p", {}, "Its tokens and those of its sessions are taken no longer. This cannot be undone: it has to be registered under another name.");
  if (!(await ask(`Revoke ${agent.agent}?`, content, "Revoke", { class: "primary no" }))) return;
  await post(`/api/agents/${encodeURIComponent(agent.agent)}/revoke`, { by: "console" });
  toast(`${agent.agent} is revoked`, "good");
  load();
}

function issued(told) {
  const copied = (text) => button("Copy", async (made) => {
    await navigator.clipboard.writeText(text);
    made.textContent = "Copied";
  }, { class: "small" });
  const given = (label, text) => text && [h("h3", {}, label), h("p", { class: "given" }, h("code", {}, text), copied(text))];
  tell(`The token of ${told.agent}`, [
    h("p", {}, "It is shown this once; the gateway keeps only its digest."),
    given("Token", told.token),
    given("As a proxy", told.proxy_url),
  ]);
}
