// Answers to what was refused or is held, beside what they are about: once, session, one hour, always, deny.

import { getIfThere, post } from "./api.js";
import { ask, button, h, lines, toast } from "./dom.js";
import { destination } from "./format.js";

const SCOPES = [
  ["once", "Once", "lets the next such request pass"],
  ["session", "Session", "lets such requests pass until the session ends"],
  ["1h", "1 hour", "lets such requests pass for an hour"],
  ["always", "Always…", "writes it into the policy; you see the line first"],
];
// What no rule names. Rules that deny, limits and secrets are for the policy to say; what is held is answered as a question.
const ANSWERABLE = ["unknown_destination", "denied_by_default"];
/** Who answers, for the record. */
const BY = "console";

/** Whether a decision is a refusal that can be answered from here. */
export const isAnswerable = (decision) =>
  decision.action === "deny" && ANSWERABLE.includes(decision.reason) && decision.host !== null;

/** The answers to a decision that refused. In a list whose rows are walked with keys they take no part in the tabs. */
export function answersTo(decision, tabindex) {
  const about = { path: `/api/decisions/${decision.id}`, preview: `/api/decisions/${decision.id}/preview`, name: destination(decision), session: decision.session, tabindex };
  const send = (scope) => post(`${about.path}/answer`, { for: scope, by: BY });
  return group(about, send, () => send("deny"));
}

/** The answers to a request that is held. `done` is called once one was given. */
export function answersToHeld(approval, done) {
  const path = `/api/approvals/${approval.id}`;
  const about = { preview: `${path}/preview`, name: approval.destination, session: approval.session };
  const send = (scope) => post(path, { answer: "approve", for: scope, shown: 1 + (approval.others?.length ?? 0), by: BY }).then(done);
  return group(about, send, () => post(path, { answer: "deny", by: BY }).then(done));
}

function group(about, approve, deny) {
  // Without a session there is none that it could hold for.
  const scopes = SCOPES.filter(([scope]) => scope !== "session" || about.session);
  const buttons = scopes.map(([scope, label, what]) =>
    button(label, () => answer(about, scope, approve), { title: what, "aria-label": `Allow ${about.name}: ${label}`, class: "small", tabindex: about.tabindex }),
  );
  const no = button("Deny", () => tried(deny, `${about.name} stays denied`), {
    title: "keeps it denied", "aria-label": `Deny ${about.name}`, class: "small no", tabindex: about.tabindex,
  });
  return h("span", { class: "answers", role: "group", "aria-label": `Answer for ${about.name}` }, buttons, no);
}

async function answer(about, scope, approve) {
  if (scope === "always" && !(await isConfirmed(about))) return;
  const until = { once: "once", session: "for its session", "1h": "for an hour", always: "always" }[scope];
  await tried(() => approve(scope), `${about.name} is allowed ${until}`);
}

async function tried(act, said) {
  try {
    await act();
    toast(said, "good");
  } catch (error) {
    toast(error.missing ? "This gateway does not take answers yet; `outgate policy allow` does." : error.message, "bad");
  }
}

async function isConfirmed(about) {
  const preview = await getIfThere(about.preview, { by: BY });
  if (!preview) {
    toast("This gateway does not take answers yet; `outgate policy allow` does.", "bad");
    return false;
  }
  const entry = h("pre", { class: "entry", tabindex: "0" });
  entry.textContent = lines(preview.entry);
  const content = [
    h("p", {}, "This goes into ", h("code", {}, preview.file), ", and holds until somebody takes it out:"),
    entry,
    h("p", { class: "soft" }, "Rules that deny, upload limits and secrets are looked at all the same."),
  ];
  return ask(`Always allow ${about.name}?`, content, "Write it");
}
