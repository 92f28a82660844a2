// What every walk through the console needs: a browser, somebody signed in, requests to look at, and what must never be.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";

const { PLAYWRIGHT, CHROMIUM, ADMIN, PROXY, TOKEN, SHOTS } = process.env;
const { chromium } = createRequire(import.meta.url)(PLAYWRIGHT);

export const admin = ADMIN;
export const shots = SHOTS;

/** Runs a walk in a browser of its own; nothing may have gone wrong in it that nobody expected. */
export async function walk(steps, options = {}) {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-quic", "--disable-gpu"] });
  try {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
    await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: ADMIN });
    const page = await context.newPage();
    page.setDefaultTimeout(10_000);
    const wrong = [];
    const expected = [];
    page.on("console", (message) => {
      if (message.type() !== "error" && !/Content Security|Trusted/.test(message.text())) return;
      const text = `${message.text()} ${message.location().url}`;
      if (!expected.some((pattern) => pattern.test(text))) wrong.push(text);
    });
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("dialog", (dialog) => {
      wrong.push(`a script ran: ${dialog.message()}`);
      dialog.dismiss();
    });
    if (process.env.FILES) await fromFiles(page);
    page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(ADMIN) && !url.startsWith("data:")) wrong.push(`it asked elsewhere: ${url}`);
    });
    await steps(page, { context, browser, expect: (pattern) => expected.push(pattern) });
    assert.deepEqual(wrong, []);
  } finally {
    await browser.close();
  }
}

/** With the page's files as they lie in a folder, in place of those in the program: nothing to be built to try a change. */
function fromFiles(page) {
  const page_of = { "/": "index.html", "/login": "login.html" };
  return page.route((url) => url.pathname.startsWith("/console/") || url.pathname in page_of, async (route) => {
    if (route.request().method() !== "GET") return route.fallback();
    const response = await route.fetch();
    const { pathname } = new URL(route.request().url());
    const name = response.status() === 401 ? "login.html" : (page_of[pathname] ?? pathname.replace("/console/", ""));
    await route.fulfill({ response, body: readFileSync(`${process.env.FILES}/${name}`) });
  });
}

/** Signs in with the token, as a person does. */
export async function signIn(page) {
  await page.goto(`${ADMIN}/login`);
  await page.getByLabel("Admin token").fill(TOKEN);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator("#nav").getByText("Overview").waitFor();
}

/** Shows a page of the console. */
export async function show(page, hash) {
  await page.evaluate((to) => (location.hash = to), hash);
  await page.waitForTimeout(50);
}

/** Sends a request through the gateway, in plain HTTP; gives the status. */
export function ask(url, { method = "GET", headers = {}, body } = {}) {
  const proxy = new URL(PROXY);
  return new Promise((resolve, reject) => {
    const request = http.request({ host: proxy.hostname, port: proxy.port, method, path: url, headers: { host: new URL(url).host, ...headers } }, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode));
    });
    request.on("error", reject);
    request.end(body);
  });
}

/** Asks the API as a script does. */
export async function api(path, options = {}) {
  const answer = await fetch(ADMIN + path, { ...options, headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" } });
  return { status: answer.status, told: await answer.json().catch(() => null) };
}

/** Nothing reaches over the edge. */
export async function nothingOverTheEdge(page, where) {
  const wide = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const over = [...document.querySelectorAll("main *, header *")].filter((element) => {
      const box = element.getBoundingClientRect();
      const hidden = element.closest(".hidden, .skip, .scroll, .saved, .side, .chart, [hidden], pre, .grid-row");
      return !hidden && box.width > 0 && box.right > width + 1;
    });
    return { width, page: document.documentElement.scrollWidth, over: over.map((element) => `${element.tagName}.${element.className}`) };
  });
  assert.ok(wide.page <= wide.width, `${where} is ${wide.page} wide in a window of ${wide.width}`);
  assert.deepEqual(wide.over, [], where);
}

/** Text stands out from what is behind it: 4.5 to 1, 3 to 1 where it is large (WCAG 2.2, 1.4.3). */
export async function everyTextCanBeRead(page, where) {
  const faint = await page.evaluate(() => {
    const channels = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
    const part = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([red, green, blue]) => 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = channels(getComputedStyle(at).backgroundColor);
        if (colour.length === 3 || colour[3] > 0.5) return colour;
      }
      return [255, 255, 255];
    };
    const faint = [];
    for (const element of document.querySelectorAll("body *")) {
      const has = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
      const style = getComputedStyle(element);
      if (!has || element.closest("svg, .hidden, .skip, noscript, [hidden], :disabled") || style.visibility === "hidden" || element.getClientRects().length === 0) continue;
      const [one, other] = [light(channels(style.color)), light(behind(element))].sort((a, b) => b - a);
      const ratio = (one + 0.05) / (other + 0.05);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      if (ratio < (large ? 3 : 4.5)) faint.push(`${element.tagName}.${element.className} “${element.textContent.trim().slice(0, 30)}” ${ratio.toFixed(2)}`);
    }
    return faint;
  });
  assert.deepEqual(faint, [], where);
}
