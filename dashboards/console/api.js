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

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Failure(0, "unreachable", "the gateway does not answer");
  }
  if (answer.status === 401) {
    // The same address now gives the sign-in page.
    location.reload();
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
  const headers = { "content-type": "application/json", "x-outgate-csrf": localStorage.getItem("outgate.csrf") ?? "" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/**
 * What happens from now on. `hello` comes first, and again whenever the line was lost: what is loaded after it misses
 * nothing. A page that nobody sees holds no line. Gives what ends it.
 */
export function listen(on) {
  let source = null;
  const close = () => {
    source?.close();
    source = null;
  };
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource("/api/events");
    const told = (name, take) => source.addEventListener(name, (event) => take(JSON.parse(event.data)));
    told("hello", (hello) => {
      on.state("live");
      on.hello(hello);
    });
    told("decisions", on.decisions);
    told("happening", on.happening);
    told("approvals", on.approvals);
    told("reload", on.reload);
    source.onerror = async () => {
      on.state("lost");
      // Whether it is the sign-in that ended, which only a request tells.
      await get("/api/status").catch(() => {});
      if (source?.readyState === EventSource.CLOSED) {
        close();
        setTimeout(open, 3000);
      }
    };
  };
  const seen = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", seen);
  open();
  return () => {
    document.removeEventListener("visibilitychange", seen);
    close();
  };
}
