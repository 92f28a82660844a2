// Charts over a time: bars on top of each other, drawn from numbers.

import { h, svg } from "./dom.js";

const HEIGHT = 132;
const FOOT = 18;
const LEFT = 52;

/**
 * Bars of a time. `series` are `{name, kind, values}`; `format` writes a number; `times` says when each bar begins.
 * Gives a figure with a key and a text for who does not see it.
 */
export function bars(title, series, times, format) {
  const totals = times.map((_, at) => series.reduce((sum, { values }) => sum + values[at], 0));
  const top = Math.max(...totals, 1);
  const sums = series.map(({ name, values }) => `${name} ${format(values.reduce((sum, value) => sum + value, 0))}`);
  const holder = h("div", { class: "chart" });
  const draw = () => holder.replaceChildren(drawing(holder.clientWidth || 480, series, times, totals, top, format, `${title}: ${sums.join(", ")}`));
  const sizes = new ResizeObserver(draw);
  sizes.observe(holder);
  const key = h("ul", { class: "key" }, series.map(({ name, kind }, at) => h("li", {}, h("span", { class: `swatch ${kind}` }), sums[at] ?? name)));
  return h("figure", { class: "card" }, h("figcaption", {}, h("h3", {}, title), key), holder);
}

function drawing(width, series, times, totals, top, format, label) {
  const wide = Math.max(1, (width - LEFT) / times.length);
  const inner = HEIGHT - FOOT;
  const scale = (value) => (value / top) * (inner - 8);
  const made = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
  // Half of one request is none.
  for (const share of top < 2 ? [0, 1] : [0, 0.5, 1]) {
    const y = inner - share * (inner - 8);
    made.append(
      svg("line", { x1: LEFT, x2: width, y1: y, y2: y, class: share === 0 ? "base" : "rule" }),
      svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, share === 0 ? "0" : totals.every((total) => total === 0) ? "" : format(Math.round(top * share))),
    );
  }
  times.forEach((time, at) => {
    let y = inner;
    const said = series.filter(({ values }) => values[at] > 0).map(({ name, values }) => `${name} ${format(values[at])}`);
    const bar = svg("g", {}, svg("title", {}, `${hour(time)}: ${said.join(", ") || "nothing"}`), svg("rect", { x: LEFT + at * wide, y: 0, width: wide, height: inner, class: "hit" }));
    for (const { kind, values } of series.filter(({ values }) => values[at] > 0)) {
      const tall = Math.max(1.5, scale(values[at]));
      y -= tall;
      bar.append(svg("rect", { x: LEFT + at * wide + 0.5, y, width: Math.max(1, wide - 1), height: tall, class: kind }));
    }
    made.append(bar);
  });
  const marks = Math.max(2, Math.min(6, Math.floor(width / 110)));
  for (let mark = 0; mark < marks; mark += 1) {
    const at = Math.round((mark * (times.length - 1)) / (marks - 1));
    const anchor = mark === 0 ? "start" : mark === marks - 1 ? "end" : "middle";
    made.append(svg("text", { x: mark === marks - 1 ? width : LEFT + at * wide, y: HEIGHT - 4, "text-anchor": anchor }, hour(times[at], times)));
  }
  return made;
}

/** The hour, or the day where the chart reaches over more than one. */
function hour(time, times) {
  const pad = (number) => String(number).padStart(2, "0");
  const at = new Date(time);
  const clock = `${pad(at.getHours())}:${pad(at.getMinutes())}`;
  const day = `${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  if (!times) return `${day} ${clock}`;
  return times.at(-1) - times[0] > 2 * 86_400_000 ? day : clock;
}

/** The charts' times out of an answer of the gateway. */
export function times(told) {
  const first = Date.parse(told.since);
  return told.parts.map((_, at) => first + at * told.part_seconds * 1000);
}

/** One series out of its parts. */
export const series = (told, name, kind, value) => ({ name, kind, values: told.parts.map((part) => value(part) ?? 0) });
