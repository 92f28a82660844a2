// A list of any length of which only what is seen exists: rows of one height, newest first, by their number `seq`.

const AROUND = 6;
const NEAR_THE_END = 40;

/**
 * Columns: `label`, `kind`, `fill(cell, row)`. `on`: `select(row, open)`, `open()`, `end(all)`, `follow(unseen)`, and
 * `near(row, element, kept)` for the row that is pointed at or chosen; `kept` are the answers it has already.
 */
export class Grid {
  constructor(label, columns, on) {
    this.rows = [];
    this.columns = columns;
    this.on = on;
    this.selected = null;
    this.unseen = 0;
    this.pool = [];
    this.shownBy = new WeakMap();
    this.build(label);
  }

  build(label) {
    const make = (role, kind) => {
      const made = document.createElement("div");
      made.className = kind;
      made.setAttribute("role", role);
      return made;
    };
    this.element = make("grid", "grid");
    this.element.setAttribute("aria-label", label);
    this.element.tabIndex = 0;
    const head = make("row", "grid-head");
    head.append(...this.columns.map((column) => {
      const cell = make("columnheader", column.kind);
      cell.textContent = column.label;
      return cell;
    }));
    this.body = make("rowgroup", "grid-body");
    // Not by the tab key: the keys are the list's.
    this.body.tabIndex = -1;
    this.space = make("presentation", "grid-space");
    this.body.append(this.space);
    const group = make("rowgroup", "");
    group.append(head);
    this.element.append(group, this.body);
    this.make = make;
    this.body.addEventListener("scroll", () => this.draw(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.sizes = new ResizeObserver(() => this.measure());
    this.sizes.observe(this.body);
  }

  measure() {
    this.height = parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 34;
    this.drawAll();
  }

  close() {
    this.sizes.disconnect();
  }

  /** Shows other rows from their beginning. */
  set(rows) {
    this.rows = rows;
    this.seen();
    this.body.scrollTop = 0;
    this.drawAll();
  }

  /** Shows the same rows as they are now, where they are now. */
  renew(rows) {
    const anchor = this.rows[this.first()];
    const offset = this.body.scrollTop - this.first() * this.height;
    const atTop = this.body.scrollTop === 0;
    this.rows = rows;
    this.drawAll();
    if (!atTop && anchor) this.body.scrollTop = Math.max(0, this.place(anchor.seq).at * this.height + offset);
    this.draw();
  }

  append(rows) {
    this.rows.push(...rows);
    this.drawAll();
  }

  /** Adds rows or puts them in the place of those with their number. What is looked at and what is chosen stay. */
  merge(rows, keep) {
    let above = 0;
    const top = this.body.scrollTop;
    const anchor = this.rows[this.first()]?.seq;
    for (const row of rows) {
      const { at, found } = this.place(row.seq);
      if (found) this.rows[at] = row;
      else if (keep(row)) {
        this.rows.splice(at, 0, row);
        if (anchor !== undefined && row.seq > anchor) above += 1;
      }
    }
    this.stretch();
    if ((top > 0 || this.isHeld()) && above > 0) {
      this.body.scrollTop = top + above * this.height;
      this.unseen += above;
      this.on.follow(this.unseen);
    }
    this.draw();
  }

  /** Somebody points at a row that can be answered: no other may slip under their finger. */
  isHeld() {
    return this.body.querySelector(".grid-row:hover .answers, .answers:focus-within") !== null;
  }

  /** Where a number stands, or would. Rows go down by it. */
  place(seq) {
    let [low, high] = [0, this.rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].seq > seq) low = middle + 1;
      else high = middle;
    }
    return { at: low, found: this.rows[low]?.seq === seq };
  }

  first() {
    return Math.floor(this.body.scrollTop / this.height);
  }

  stretch() {
    this.space.style.height = `${this.rows.length * this.height}px`;
    this.element.setAttribute("aria-rowcount", this.rows.length + 1);
  }

  drawAll() {
    if (!this.height) return;
    this.stretch();
    this.pool.forEach((element) => this.shownBy.delete(element));
    this.draw();
  }

  draw() {
    if (!this.height) return;
    if (this.unseen > 0 && this.body.scrollTop < this.height / 2) this.seen();
    const from = Math.max(0, this.first() - AROUND);
    const to = Math.min(this.rows.length, this.first() + Math.ceil(this.body.clientHeight / this.height) + AROUND);
    // A row that stays keeps its element, wherever it moves: what points at it, presses or holds it goes on doing so.
    const seen = this.rows.slice(from, to);
    const wanted = new Set(seen.map((row) => row.seq));
    const kept = new Map(this.pool.filter((element) => wanted.has(element.row?.seq)).map((element) => [element.row.seq, element]));
    const free = this.pool.filter((element) => kept.get(element.row?.seq) !== element);
    seen.forEach((row, number) => this.show(kept.get(row.seq) ?? free.pop() ?? this.row(), row, from + number));
    for (const element of free) element.hidden = true;
    if (to > this.rows.length - NEAR_THE_END) this.on.end(false);
  }

  row() {
    const element = this.make("row", "grid-row");
    element.append(...this.columns.map((column) => this.make("gridcell", column.kind)));
    element.addEventListener("click", () => this.choose(element.row, true));
    element.addEventListener("pointerenter", () => this.on.near(element.row, element));
    this.space.append(element);
    this.pool.push(element);
    return element;
  }

  show(element, row, at) {
    element.hidden = false;
    const known = this.shownBy.get(element);
    if (known?.row !== row) {
      const kept = known?.row.seq === row.seq ? element.querySelector(".answers") : null;
      element.row = row;
      element.id = `row-${row.seq}`;
      this.columns.forEach((column, number) => column.fill(element.children[number], row));
      element.dataset.action = row.action;
      if (kept || row.seq === this.selected || element.matches(":hover")) this.on.near(row, element, kept);
    }
    if (known?.at !== at) {
      element.style.transform = `translateY(${at * this.height}px)`;
      element.setAttribute("aria-rowindex", at + 2);
    }
    element.setAttribute("aria-selected", row.seq === this.selected);
    this.shownBy.set(element, { row, at });
  }

  seen() {
    this.unseen = 0;
    this.on.follow(0);
  }

  toTop() {
    this.body.scrollTop = 0;
    this.draw();
  }

  /** Chooses a row. */
  choose(row, open = false) {
    this.selected = row?.seq ?? null;
    if (row) this.element.setAttribute("aria-activedescendant", `row-${row.seq}`);
    else this.element.removeAttribute("aria-activedescendant");
    this.draw();
    if (!row) return;
    this.pool.filter((element) => element.row === row).forEach((element) => this.on.near(row, element));
    this.on.select(row, open);
  }

  /** Chooses the row so many further down, and brings it into view. */
  move(by) {
    const now = this.selected === null ? -1 : this.place(this.selected).at;
    const start = now === -1 ? this.first() - Math.sign(by) : now;
    const at = Math.max(0, Math.min(this.rows.length - 1, start + by));
    if (!this.rows[at]) return;
    this.reveal(at);
    this.choose(this.rows[at]);
  }

  reveal(at) {
    const [top, bottom] = [at * this.height, (at + 1) * this.height];
    if (top < this.body.scrollTop) this.body.scrollTop = top;
    else if (bottom > this.body.scrollTop + this.body.clientHeight) this.body.scrollTop = bottom - this.body.clientHeight;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || ![this.element, this.body].includes(event.target)) return;
    const page = Math.max(1, Math.floor(this.body.clientHeight / this.height) - 1);
    const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves) {
      if (event.key === "End") this.on.end(true);
      this.move(moves[event.key]);
    } else if (event.key === "Enter" && this.selected !== null) {
      this.on.open();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
