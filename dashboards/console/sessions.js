// Sessions: who runs, who ran, in which repository, and what they came to.

import { get } from "./api.js";
import { empty, fill, h, table } from "./dom.js";
import { ago, moment } from "./format.js";
import { refresher } from "./overview.js";

export function show(main) {
  const content = h("div", { class: "content" }, h("p", { class: "soft" }, "Loading…"));
  fill(main, h("header", { class: "title" }, h("h1", {}, "Sessions")), content);
  const load = async () => {
    try {
      const sessions = await get("/api/sessions", { limit: 500 });
      fill(content, sessions.length > 0 ? listed(sessions) : none());
    } catch (error) {
      fill(content, h("p", { class: "bad" }, error.message));
    }
  };
  load();
  return { ...refresher(load), decisions: () => {} };
}

const none = () => empty("No session yet", "A session is one run of an agent. Start one: ", h("code", {}, "outgate run --label fix-42 -- claude"));

function listed(sessions) {
  const state = (session) =>
    session.ended === null
      ? h("span", { class: "mark allow" }, "● runs")
      : h("span", { class: session.exit_code ? "mark deny" : "soft" }, session.exit_code === null ? `ended, ${session.why}` : `exit ${session.exit_code}`);
  return table("Sessions", [
    { label: "Started", kind: "t", cell: ({ started }) => h("span", { title: moment(started) }, ago(started)) },
    { label: "Agent", kind: "who", cell: ({ agent }) => agent },
    { label: "Label", cell: ({ label }) => label ?? "–" },
    { label: "Runs", cell: ({ command, tool }) => h("code", {}, command ?? tool ?? "–") },
    { label: "Where", cell: ({ repo, branch }) => [repo ?? "–", branch && h("small", {}, branch)] },
    { label: "Model", cell: ({ provider, model }) => model ? [model, provider && h("small", {}, provider)] : "–" },
    { label: "State", cell: (session) => [state(session), session.observe && h("small", {}, "only observes")] },
    { label: "Decisions", cell: ({ session }) => h("a", { href: `#/decisions?filter=session:${session}` }, "Show") },
  ], sessions);
}
