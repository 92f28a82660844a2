// What is asked of the gateway, and what it tells by itself.

/** Why something was not done. `missing` says that this gateway has no such route. */
export class Failure extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
    this.missing = (status === 404 || status === 405) && /^(there is nothing here|this takes another method)/.test(message);
  }
}

/** The word that shows that it is this page that asks. Servers on other ports of this host get the cookie, and not this. */
const word = () => localStorage.getItem("outgate.csrf") ?? "";

async function ask(path, { headers, ...options } = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...headers, "x-outgate-csrf": word() } });
  } catch {
    throw new Failure(0, "unreachable", "the gateway does not answer");
  }
  if (answer.status === 401) {
    // The same address now gives the sign-in page.
    location.reload();
    return new Promise(() => {});
  }
  if (answer.status === 403 && !word()) {
    // The browser forgot it, and not the cookie.
    location.replace("/login");
    return new Promise(() => {});
  }
  const text = await answer.text();
  let told = null;
  try {
    told = text ? JSON.parse(text) : null;
  } catch {
    throw new Failure(answer.status, "unreadable", "the gateway's answer cannot be read");
  }
  if (!answer.ok) throw new Failure(answer.status, told?.error?.code ?? "", told?.error?.message ?? answer.statusText);
  return told;
}

/** Reads. Parameters without a value are left out. */
export function get(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  return ask(query ? `${path}?${query}` : path);
}

/** Reads what not every gateway offers; `null` where this one does not. */
export async function getIfThere(path, parameters) {
  try {
    return await get(path, parameters);
  } catch (error) {
    if (error.missing) return null;
    throw error;
  }
}

/** Changes something. */
export function post(path, body = {}) {
  return ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

/**
 * What happens from now on. `hello` comes first, and again whenever the line was lost: what is loaded after it misses
 * nothing. A page that nobody sees holds no line. Gives what ends it.
 */
export function listen(on) {
  let line = null;
  let ended = false;
  const take = {
    hello: (hello) => {
      on.state("live");
      on.hello(hello);
    },
    decisions: on.decisions,
    happening: on.happening,
    approvals: on.approvals,
    reload: on.reload,
  };
  const close = () => {
    line?.abort();
    line = null;
  };
  const open = async () => {
    if (line || ended || document.hidden) return;
    const mine = new AbortController();
    line = mine;
    try {
      const answer = await fetch("/api/events", { headers: { "x-outgate-csrf": word() }, signal: mine.signal });
      if (answer.ok) await read(answer.body, (name, data) => take[name]?.(JSON.parse(data)));
    } catch {
      // It was closed, or the gateway went.
    }
    if (line !== mine) return;
    on.state("lost");
    // Whether it is the sign-in that ended, which only a request tells.
    await get("/api/status").catch(() => {});
    if (line !== mine) return;
    line = null;
    setTimeout(open, 2000);
  };
  const seen = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", seen);
  open();
  return () => {
    ended = true;
    document.removeEventListener("visibilitychange", seen);
    close();
  };
}

/** Reads server-sent events to their end. Not by `EventSource`, which cannot say the page's word. */
async function read(body, told) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const field = (name) => event.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
      if (field("data") !== undefined) told(field("event"), field("data"));
    }
  }
}
