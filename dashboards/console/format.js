// Numbers, times and words as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** `1.5 MiB`. */
export function bytes(number) {
  if (number === null || number === undefined) return "–";
  let [value, unit] = [number, 0];
  while (value >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${UNITS[unit]}`;
}

/** `1 234 567`, with thin spaces. */
export const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");

const pad = (number, width = 2) => String(number).padStart(width, "0");

/** `14:03:22`, or `11-21 14:03` where it is another day. */
export function clock(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  const minutes = `${pad(time.getHours())}:${pad(time.getMinutes())}`;
  if (time.toDateString() === new Date().toDateString()) return `${minutes}:${pad(time.getSeconds())}`;
  return `${pad(time.getMonth() + 1)}-${pad(time.getDate())} ${minutes}`;
}

/** `2026-11-21 14:03:22`, in the time of this machine. */
export function moment(text) {
  if (!text) return "–";
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  const day = `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
  return `${day} ${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`;
}

const STEPS = [["day", 86400], ["hour", 3600], ["minute", 60]];

/** `3 minutes ago`. */
export function ago(text) {
  if (!text) return "–";
  const seconds = (Date.now() - new Date(text).getTime()) / 1000;
  if (Math.abs(seconds) < 45) return seconds < -5 ? "in a moment" : "just now";
  const [name, size] = STEPS.find(([, size]) => Math.abs(seconds) >= size) ?? ["minute", 60];
  const number = Math.max(1, Math.round(Math.abs(seconds) / size));
  const said = `${number} ${name}${number === 1 ? "" : "s"}`;
  return seconds < 0 ? `in ${said}` : `${said} ago`;
}

/** `3 d`, `15 min`. */
export function lasts(seconds) {
  const found = [["d", 86400], ["h", 3600], ["min", 60]].find(([, size]) => seconds >= size && seconds % size === 0);
  return found ? `${seconds / found[1]} ${found[0]}` : `${seconds} s`;
}

/** A code as words: `unknown_destination` is `unknown destination`. */
export const words = (code) => (code ? code.replaceAll("_", " ") : "–");

/** Where a decision went: the host, and the port where the scheme does not say it. */
export function destination(decision) {
  if (!decision.host) return "(unreadable)";
  const usual = { https: 443, http: 80 }[decision.scheme];
  return decision.port && decision.port !== usual ? `${decision.host}:${decision.port}` : decision.host;
}

/** Its URL, as far as it is on record. */
export function address(decision) {
  return decision.host ? `${decision.scheme ?? "tcp"}://${destination(decision)}${decision.path ?? ""}` : "(unreadable)";
}
