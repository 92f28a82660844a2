// Elements made from text. Nothing here reads markup, so nothing that a request said can become any.

const SVG = "http://www.w3.org/2000/svg";
// What would not be seen, or would turn the text round it: controls, marks of direction, signs of no width.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;
const escaped = (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`;

/** Text as it may be shown: what cannot be seen is written out. */
export const shown = (text) => String(text).replace(UNSEEN, escaped);

/** The same, with its lines left as they are. */
export const lines = (text) => String(text).replace(UNSEEN, (sign) => (sign === "\n" || sign === "\t" ? sign : escaped(sign)));

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : shown(value));
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  const given = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  return given.map((child) => (child instanceof Node ? child : document.createTextNode(shown(child))));
}

/** An element: its attributes, `onclick` and the like as listeners, its children as nodes or text. */
export const h = (name, attributes, ...children) => make(document.createElement(name), attributes, children);

/** The same for drawings. */
export const svg = (name, attributes, ...children) => make(document.createElementNS(SVG, name), attributes, children);

/** Puts other children in the place of those there are. */
export const fill = (element, ...children) => element.replaceChildren(...nodes(children));

/** A button that does something, and cannot be pressed again while it does. */
export function button(label, action, attributes = {}) {
  const made = h("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", async (event) => {
    event.stopPropagation();
    made.disabled = true;
    try {
      await action(made);
    } catch (error) {
      toast(error.message, "bad");
    } finally {
      made.disabled = false;
    }
  });
  return made;
}

/** Says something at the edge, and to whoever listens to the page. */
export function toast(text, kind = "") {
  const made = h("p", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(made);
  setTimeout(() => made.remove(), kind === "bad" ? 9000 : 5000);
}

/** What stands where there is nothing: what that means, and what to do next. */
export const empty = (title, ...next) => h("div", { class: "empty" }, h("h3", {}, title), h("p", {}, next));

/** A part that this gateway does not have. */
export const unavailable = (what) =>
  empty(`${what} not available`, "This gateway does not offer it. A newer version of Outgate may.");

/** A table; on a narrow window each row becomes a card. Columns: `label`, `cell(row)`, `kind`. */
export function table(label, columns, rows) {
  const head = columns.map((column) => h("th", { scope: "col", class: column.kind }, column.label));
  const body = rows.map((row) =>
    h("tr", {}, columns.map((column) => h("td", { class: column.kind, "data-label": column.label }, column.cell(row)))),
  );
  const made = h("table", { "aria-label": label }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, made);
}

/** A question in front of everything; gives whether the answer was yes. */
export function ask(title, content, yes, attributes = {}) {
  return new Promise((resolve) => {
    const confirm = h("button", { type: "submit", class: "primary", value: "yes", ...attributes }, yes);
    const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const form = h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), content, h("footer", {}, cancel, confirm));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Something to read in front of everything. */
export function tell(title, content) {
  const close = h("button", { type: "submit", class: "primary" }, "Close");
  const form = h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), content, h("footer", {}, close));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
