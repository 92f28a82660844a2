// The language of filters: the words of `outgate log`, as `word:value`, all of which must hold.

const SETS = { class: ["model", "tool", "unknown"], action: ["allow", "ask", "deny"] };
const KEYS = ["class", "action", "agent", "host", "reason", "finding", "session", "since"];
const SECONDS = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

/** Reads a filter: its conditions, or what is wrong with it in words. */
export function parse(text) {
  const conditions = {};
  const mistakes = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const [, key, value] = word.match(/^([a-z]+):(.*)$/) ?? [null, /[.*]/.test(word) ? "host" : "", word];
    const mistake = wrong(key, value, word, conditions);
    if (mistake) mistakes.push(mistake);
    else conditions[key] = key === "host" ? value.toLowerCase() : value;
  }
  return { conditions, mistakes };
}

function wrong(key, value, word, conditions) {
  if (!KEYS.includes(key)) return `“${word}” is no condition; there are ${KEYS.map((known) => `${known}:`).join(" ")}`;
  if (!value) return `${key}: wants a value`;
  if (conditions[key] !== undefined) return `${key}: stands twice`;
  if (SETS[key] && !SETS[key].includes(value)) return `${key}: takes ${SETS[key].join(", ")}, not “${value}”`;
  if (key === "since" && since(value) === null) return `since: takes 30m, 2h, 7d or a time such as 2026-11-21T06:00Z, not “${value}”`;
  return null;
}

/** The time that `since:` means, in milliseconds; `null` for none. */
export function since(text, now = Date.now()) {
  const lasting = text.match(/^(\d+)([smhdw])$/);
  if (lasting) return now - Number(lasting[1]) * SECONDS[lasting[2]] * 1000;
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : NaN;
  return Number.isNaN(time) ? null : time;
}

/** As parameters of the API. */
export function query({ conditions }) {
  const parameters = { ...conditions };
  if (parameters.since) parameters.since = new Date(since(parameters.since)).toISOString();
  return parameters;
}

const isHost = (host, pattern) =>
  pattern.startsWith("*") ? host.length >= pattern.length && host.endsWith(pattern.slice(1)) : host === pattern;

const HOLDS = {
  class: (row, value) => row.class === value,
  action: (row, value) => row.action === value,
  agent: (row, value) => row.agent === value,
  host: (row, value) => row.host !== null && isHost(row.host, value),
  reason: (row, value) => row.reason === value,
  finding: (row, value) => row.findings.some((finding) => finding.kind === value),
  session: (row, value) => row.session === value,
  since: (row, value) => Date.parse(row.time) >= since(value),
};

/** Whether a decision passes, as the gateway would say. */
export const passes = ({ conditions }, row) => Object.entries(conditions).every(([key, value]) => HOLDS[key](row, value));
