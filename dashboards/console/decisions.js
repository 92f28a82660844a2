// Decisions as they are taken: a list that follows, a filter, and the one that is looked at.

import { answersTo, isAnswerable } from "./answers.js";
import { get } from "./api.js";
import { button, empty, fill, h, shown } from "./dom.js";
import { badges, chip, mark, showDetail } from "./detail.js";
import { parse, passes, query } from "./filter.js";
import { bytes, clock, count, destination, words } from "./format.js";
import { Grid } from "./grid.js";

const FIRST = 200;
const MORE = 1000;
const ALL = 10_000;
/** Rows that are kept; a filter finds what is older. */
const MOST = 100_000;
const SAVED = "outgate.filters";
const USUAL = ["action:deny", "class:unknown", "finding:secret", "finding:large_upload"];

const cell = (kind, label, fillCell) => ({ kind, label, fill: fillCell });
const text = (value) => (element, row) => (element.textContent = shown(value(row)));

const COLUMNS = [
  cell("time", "Time", text((row) => clock(row.time))),
  cell("action", "Action", (element, row) => fill(element, mark(row.action, row.outcome))),
  cell("class", "Class", (element, row) => fill(element, chip(row.class))),
  cell("agent", "Agent", text((row) => row.agent)),
  cell("what", "Request", (element, row) => fill(
    element,
    h("span", { class: "method" }, row.method ?? row.kind),
    h("bdi", { class: "host" }, destination(row)), h("bdi", { class: "path" }, row.path ?? ""), badges(row.findings),
  )),
  cell("reason", "Reason", (element, row) => fill(element, h("span", { class: "code" }, words(row.reason)))),
  cell("sent", "Sent", text((row) => bytes(row.request_bytes))),
  cell("status", "Status", text((row) => (row.outcome ? (row.status ?? row.outcome) : "under way"))),
];

/** What is kept of a decision in the list: everything that a row shows or a filter asks. */
const slim = ({ body, hash, previous, outcome_hash, policy, owner, upstream, ms, ...row }) => row;

export function show(main, context) {
  const page = new Decisions(main, context);
  page.load();
  return page;
}

class Decisions {
  constructor(main, context) {
    this.context = context;
    this.filter = parse(context.parameters.get("filter") ?? "");
    this.loading = null;
    this.complete = false;
    this.grid = new Grid("Decisions", COLUMNS, {
      select: (row, open) => this.select(row, open),
      open: () => this.open(),
      end: (all) => this.older(all),
      follow: (unseen) => this.follow(unseen),
      near: (row, element, kept) => this.offer(row, element, kept),
    });
    this.build(main);
  }

  build(main) {
    const value = this.context.parameters.get("filter") ?? "";
    this.input = h("input", {
      id: "filter", type: "search", spellcheck: "false", autocomplete: "off", value, maxlength: "400",
      placeholder: "class:unknown action:deny agent:claude host:*.example since:1h", "aria-describedby": "said",
    });
    this.said = h("p", { id: "said", class: "said", "aria-live": "polite" });
    this.saved = h("div", { class: "saved", role: "group", "aria-label": "Saved filters" });
    this.nothing = h("div", { class: "nothing", hidden: true });
    this.more = button("", () => this.grid.toTop(), { class: "more", hidden: true });
    this.pane = h("aside", { class: "pane", hidden: true, tabindex: "-1", "aria-label": "Decision" });
    const form = h("form", { class: "filter", role: "search" },
      h("label", { for: "filter", class: "hidden" }, "Filter"), this.input,
      h("button", { type: "submit" }, "Filter"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.use(this.input.value);
    });
    const list = h("div", { class: "list" }, this.grid.element, this.nothing, this.more);
    fill(main, h("div", { class: "decisions" },
      h("h1", { class: "hidden" }, "Decisions"), form, this.saved, this.said, h("div", { class: "split" }, list, this.pane)));
    this.tellSaved();
    this.grid.measure();
  }

  /** Takes another filter, if it is one. */
  use(text) {
    const filter = parse(text);
    if (filter.mistakes.length > 0) {
      this.said.textContent = shown(filter.mistakes.join("; "));
      this.said.classList.add("bad");
      return;
    }
    this.input.value = text.trim();
    this.filter = filter;
    this.context.remember({ filter: text.trim() });
    this.close_pane();
    this.load();
    this.tellSaved();
  }

  async load(where = "beginning") {
    if (this.filter.mistakes.length > 0) return this.use(this.input.value);
    const mine = (this.loading = {});
    try {
      const limit = where === "here" ? MORE : FIRST;
      const rows = (await get("/api/decisions", { ...query(this.filter), limit })).map(slim);
      if (this.loading !== mine) return;
      const older = where === "here" ? this.olderThan(rows) : null;
      if (!older) this.complete = rows.length < limit;
      if (where === "here") this.grid.renew(older ? rows.concat(older) : rows);
      else this.grid.set(rows);
      this.tell();
    } catch (error) {
      this.said.textContent = shown(error.message);
      this.said.classList.add("bad");
    } finally {
      if (this.loading === mine) this.loading = null;
    }
  }

  /** What is shown already and follows on these rows without a gap; `null` where there may be one. */
  olderThan(rows) {
    const last = rows.at(-1);
    if (!last || this.grid.rows.length === 0 || last.seq > this.grid.rows[0].seq) return null;
    const { at, found } = this.grid.place(last.seq);
    return this.grid.rows.slice(found ? at + 1 : at);
  }

  /** Loads what is older. */
  async older(all) {
    const last = this.grid.rows.at(-1);
    if (this.loading || this.complete || !last || this.grid.rows.length >= MOST) return;
    const mine = (this.loading = {});
    try {
      const limit = all ? ALL : MORE;
      const rows = (await get("/api/decisions", { ...query(this.filter), limit, before: last.seq })).map(slim);
      if (this.loading !== mine) return;
      this.complete = rows.length < limit;
      this.grid.append(rows.slice(0, MOST - this.grid.rows.length));
      this.tell();
    } finally {
      if (this.loading === mine) this.loading = null;
    }
  }

  // What happens, as `listen` tells it.
  decisions(views) {
    const oldest = this.grid.rows.at(-1)?.seq ?? 0;
    const keep = (row) => (this.complete || row.seq > oldest) && passes(this.filter, row);
    this.grid.merge(views.map(slim), keep);
    const looked = views.find((view) => view.id === this.pane.dataset.id);
    if (looked && !this.pane.hidden && looked.outcome) showDetail(this.pane, looked, this.detailed());
    this.tell();
  }

  hello() {
    this.load("here");
  }

  reload() {
    // Under load this comes often; once a second is enough.
    this.later ??= setTimeout(() => {
      this.later = null;
      this.load("here");
    }, 1000);
  }

  tell() {
    const number = this.grid.rows.length;
    const rest = this.complete ? "" : number >= MOST ? " shown; a filter finds older ones" : " loaded, older ones follow";
    this.said.textContent = number === 0 ? "" : `${count(number)} decision${number === 1 ? "" : "s"}${rest}`;
    this.said.classList.remove("bad");
    this.nothing.hidden = number > 0;
    if (number === 0) fill(this.nothing, this.whyNothing());
  }

  whyNothing() {
    if (Object.keys(this.filter.conditions).length > 0) {
      return [empty("No decision fits this filter", "Take a condition away, or reach further back with since:7d."), button("Show all", () => this.use(""))];
    }
    return empty("Nothing has asked yet", "Start an agent behind the gateway: ", h("code", {}, "outgate run -- claude"), ". Each request appears here as it is decided.");
  }

  follow(unseen) {
    this.more.hidden = unseen === 0;
    this.more.textContent = `↑ ${count(unseen)} new`;
  }

  /** Puts the answers into a row that is pointed at: in all of them they would only cost. */
  offer(row, element, kept) {
    const reason = element.querySelector(".reason");
    if (isAnswerable(row) && !reason.querySelector(".answers")) reason.append(kept ?? answersTo(row, "-1"));
  }

  select(row, open) {
    if (open || !this.pane.hidden) this.detail(row);
  }

  open() {
    const { at, found } = this.grid.place(this.grid.selected);
    if (!found) return;
    this.detail(this.grid.rows[at]);
    this.pane.focus();
  }

  detailed() {
    return {
      filter: (text) => this.use(text),
      close: () => {
        this.close_pane();
        this.grid.element.focus();
      },
    };
  }

  detail(row) {
    this.pane.hidden = false;
    this.pane.scrollTop = 0;
    if (this.pane.dataset.id === row.id) return;
    this.pane.dataset.id = row.id;
    showDetail(this.pane, row, this.detailed());
  }

  close_pane() {
    this.pane.hidden = true;
    delete this.pane.dataset.id;
  }

  /** Keys of this page. Says whether it was one. */
  key(event) {
    if (event.key === "/") this.input.focus();
    else if (event.key === "Escape" && !this.pane.hidden) this.detailed().close();
    else if (["j", "k", "ArrowDown", "ArrowUp"].includes(event.key)) {
      this.grid.element.focus();
      this.grid.move(["j", "ArrowDown"].includes(event.key) ? 1 : -1);
    } else return false;
    return true;
  }

  close() {
    clearTimeout(this.later);
    this.loading = {};
    this.grid.close();
  }

  filters() {
    try {
      const kept = JSON.parse(localStorage.getItem(SAVED));
      return Array.isArray(kept) ? kept.filter((known) => typeof known === "string") : USUAL;
    } catch {
      return USUAL;
    }
  }

  save() {
    const text = this.input.value.trim();
    const { mistakes } = parse(text);
    if (!text || mistakes.length > 0) return this.use(text);
    localStorage.setItem(SAVED, JSON.stringify([...new Set([...this.filters(), text])].slice(-20)));
    this.use(text);
  }

  tellSaved() {
    const now = this.input.value.trim();
    const kept = this.filters().map((known) =>
      h("span", { class: "kept" },
        button(known, () => this.use(known === now ? "" : known), { class: "pill", "aria-pressed": known === now ? "true" : "false" }),
        known === now && button("×", () => this.forget(known), { class: "quiet", "aria-label": `Forget the filter ${known}` })),
    );
    const isNew = now !== "" && !this.filters().includes(now);
    fill(this.saved, isNew && button("+ Keep this filter", () => this.save(), { class: "pill save", title: "In this browser" }), kept);
  }

  forget(known) {
    localStorage.setItem(SAVED, JSON.stringify(this.filters().filter((other) => other !== known)));
    this.use("");
  }
}
