// The console: which page is shown, what every page has, and what happens told to the one that is shown.

import * as agents from "./agents.js";
import * as alerts from "./alerts.js";
import * as approvals from "./approvals.js";
import * as audit from "./audit.js";
import * as decisions from "./decisions.js";
import * as destinations from "./destinations.js";
import * as overview from "./overview.js";
import * as policy from "./policy.js";
import * as sessions from "./sessions.js";
import * as uploads from "./uploads.js";
import { get, getIfThere, listen, post } from "./api.js";
import { fill, h, tell } from "./dom.js";
import { count } from "./format.js";

const PAGES = [
  ["overview", "Overview", overview],
  ["decisions", "Decisions", decisions],
  ["approvals", "Approvals", approvals],
  ["destinations", "Destinations", destinations],
  ["uploads", "Uploads", uploads],
  ["sessions", "Sessions", sessions],
  ["agents", "Agents", agents],
  ["policy", "Policy", policy],
  ["alerts", "Alerts", alerts],
  ["audit", "Audit", audit],
];
/** How often is asked what is held, in case the line that tells it was lost. */
const ASK_APPROVALS = 10_000;

const KEYS = [
  ["j ↓", "next decision"],
  ["k ↑", "previous decision"],
  ["Home End PgUp PgDn", "further; End loads what is older"],
  ["Enter", "look at the chosen decision"],
  ["Esc", "close what is open"],
  ["/", "filter"],
  ["?", "this"],
];
const GO = { o: "overview", d: "decisions", a: "approvals", t: "destinations", u: "uploads", s: "sessions", n: "agents", p: "policy", l: "alerts", r: "audit" };

const main = document.getElementById("main");
const state = { page: null, name: null, line: "live", status: null, approvals: undefined, going: false };

function hash(name, parameters = {}) {
  const given = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)).toString();
  return given ? `#/${name}?${given}` : `#/${name}`;
}

function route() {
  const [, name, query] = location.hash.match(/^#\/([a-z]+)(?:\?(.*))?$/) ?? [null, "overview", ""];
  const [known, title, page] = PAGES.find(([known]) => known === name) ?? PAGES[0];
  state.page?.close?.();
  state.name = known;
  document.title = `${title} · Outgate`;
  main.className = known;
  main.scrollTop = 0;
  state.page = page.show(main, {
    parameters: new URLSearchParams(query ?? ""),
    go: (to, parameters) => (location.hash = hash(to, parameters)),
    remember: (parameters) => history.replaceState(null, "", hash(known, parameters)),
    refresh: askApprovals,
  });
  tellNavigation();
}

function tellNavigation() {
  const waiting = state.approvals?.approvals.filter((approval) => !approval.state || approval.state === "pending").length ?? 0;
  const link = ([name, title]) =>
    h("a", { href: `#/${name}`, "aria-current": name === state.name ? "page" : null }, title,
      name === "approvals" && waiting > 0 && h("span", { class: "waiting", "aria-label": `${waiting} waiting` }, count(waiting)));
  fill(document.getElementById("nav"), PAGES.map(link));
  document.querySelector('#nav [aria-current="page"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function tellState() {
  const { line, status } = state;
  const mode = status?.mode;
  fill(document.getElementById("state"),
    h("span", { class: `line ${line}` }, line === "live" ? "live" : "no connection"),
    mode && h("span", { class: `mode ${mode}` }, mode === "observe" ? "observes only" : "enforces"));
}

async function askStatus() {
  state.status = await get("/api/status").catch(() => state.status);
  tellState();
}

function tellApprovals(told) {
  const changed = JSON.stringify(told) !== JSON.stringify(state.approvals);
  state.approvals = told;
  if (!changed) return;
  tellNavigation();
  state.page?.approvals?.(told);
}

async function askApprovals() {
  if (document.hidden || state.approvals === null) return;
  try {
    tellApprovals(await getIfThere("/api/approvals"));
  } catch {
    // The line says already that the gateway does not answer.
  }
}

function theme() {
  const next = { auto: "light", light: "dark", dark: "auto" };
  const made = document.getElementById("theme");
  const use = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    localStorage.setItem("outgate.theme", name === "auto" ? "" : name);
    made.textContent = { auto: "◐", light: "☀", dark: "☾" }[name];
    made.setAttribute("aria-label", `Colours: ${name}. Change to ${next[name]}`);
    made.title = `Colours: ${name}`;
    made.onclick = () => use(next[name]);
  };
  use(localStorage.getItem("outgate.theme") || "auto");
}

function showKeys() {
  const strokes = (keys) => keys.split(" ").map((key) => [h("kbd", {}, key), " "]);
  const pages = Object.entries(GO).map(([key, name]) => [`g ${key}`, PAGES.find(([known]) => known === name)[1]]);
  tell("Keys", h("dl", { class: "facts keys" }, [...KEYS, ...pages].map(([keys, what]) => h("div", {}, h("dt", {}, strokes(keys)), h("dd", {}, what)))));
}

function key(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog")) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (state.going && GO[event.key]) location.hash = `#/${GO[event.key]}`;
  else if (event.key === "?") showKeys();
  else if (event.key === "/" && state.name !== "decisions") location.hash = "#/decisions";
  else if (event.key !== "g" && !state.page?.key?.(event)) return (state.going = false);
  state.going = event.key === "g";
  event.preventDefault();
}

theme();
document.getElementById("help").addEventListener("click", showKeys);
document.getElementById("logout").addEventListener("click", async () => {
  await post("/logout").catch(() => {});
  localStorage.removeItem("outgate.csrf");
  location.replace("/login");
});
document.addEventListener("keydown", key);
window.addEventListener("hashchange", route);
route();
askStatus();
askApprovals();
setInterval(askApprovals, ASK_APPROVALS);
listen({
  state: (line) => ((state.line = line), tellState()),
  hello: (told) => {
    askApprovals();
    state.page?.hello?.(told);
  },
  decisions: (views) => state.page?.decisions?.(views),
  reload: () => state.page?.reload?.(),
  approvals: tellApprovals,
  happening: (event) => {
    if (event.event === "policy_in_force") askStatus();
    state.page?.happening?.(event);
  },
});
