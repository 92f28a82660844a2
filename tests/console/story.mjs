// The whole story: refused, answered in the console, and then it passes. What a rule holds is answered there, too.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { api, ask, show, signIn, walk } from "./browser.mjs";

const { POLICY, ORIGIN } = process.env;
const url = (host, path) => `http://${host}:${ORIGIN}${path}`;
const file = `${POLICY}/allowed.toml`;
const written = () => (existsSync(file) ? readFileSync(file, "utf8") : "");
const row = (page, path) => page.locator(".grid-row", { hasText: path });

await walk(async (page) => {
  await signIn(page);
  await show(page, "#/decisions");
  assert.equal(await ask(url("new.test", "/first")), 403);
  await row(page, "/first").getByText("403").waitFor();
  await row(page, "/first").hover();

  // Always: what is written is shown first, and nothing is written when it is not wanted.
  await row(page, "/first").getByRole("button", { name: /Always/ }).click();
  const dialog = page.getByRole("dialog", { name: `Always allow new.test:${ORIGIN}?` });
  const entry = await dialog.locator("pre.entry").textContent();
  assert.match(entry, new RegExp(`new\\.test:${ORIGIN}`));
  assert.equal(await dialog.locator("p code").first().textContent(), file);
  await page.screenshot({ path: `${process.env.SHOTS}/always.png` });
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await dialog.waitFor({ state: "hidden" });
  assert.equal(written(), "");
  assert.equal(await ask(url("new.test", "/second")), 403);
  await row(page, "/second").waitFor({ state: "attached" });

  await row(page, "/first").hover();
  await row(page, "/first").getByRole("button", { name: /Always/ }).click();
  await dialog.getByRole("button", { name: "Write it" }).click();
  await page.getByText(`new.test:${ORIGIN} is allowed always`).waitFor();
  assert.equal(await ask(url("new.test", "/third")), 200);
  await row(page, "/third").getByText("allowed", { exact: false }).first().waitFor();
  assert.ok(written().includes(`"new.test:${ORIGIN}"`), written());

  // Once is once, an hour is more than once, and deny is no.
  for (const [host, label, statuses] of [["once.test", "Once", [200, 403]], ["hour.test", "1 hour", [200, 200]], ["no.test", "Deny", [403, 403]]]) {
    assert.equal(await ask(url(host, "/asked")), 403);
    await row(page, host).first().click();
    const pane = page.getByRole("complementary", { name: "Decision" });
    await pane.getByRole("heading", { name: `${host}:${ORIGIN}` }).waitFor();
    await pane.getByText("Allow it?").waitFor();
    await pane.getByRole("button", { name: label === "Deny" ? /^Deny/ : new RegExp(`: ${label}$`) }).click();
    await page.getByText(label === "Deny" ? `${host}:${ORIGIN} stays denied` : `${host}:${ORIGIN} is allowed`).first().waitFor();
    for (const status of statuses) assert.equal(await ask(url(host, "/asked")), status, `${host} after ${label}`);
  }

  // What a rule holds waits on the page of approvals, and the request goes on when it is answered.
  const held = ask(url("held.test", "/waits"));
  await page.locator("#nav .waiting").waitFor();
  await show(page, "#/overview");
  await page.getByRole("heading", { name: "Waiting for you" }).waitFor();
  await page.screenshot({ path: `${process.env.SHOTS}/overview-waiting.png` });
  await show(page, "#/approvals");
  await page.locator(".held .card", { hasText: "held.test" }).waitFor();
  await page.screenshot({ path: `${process.env.SHOTS}/approvals-waiting.png` });
  await page.locator(".held .card", { hasText: "held.test" }).getByRole("button", { name: /: Once$/ }).click();
  assert.equal(await held, 200);
  await page.getByText("Nothing waits for you").waitFor();
  await page.locator("#nav .waiting").waitFor({ state: "hidden" });
  const again = ask(url("held.test", "/no"));
  await page.locator(".held .card", { hasText: "held.test" }).getByRole("button", { name: /^Deny/ }).click();
  assert.equal(await again, 403);
  const decisions = (await api("/api/decisions?host=held.test")).told;
  assert.deepEqual(decisions.map(({ reason }) => reason), ["approval_denied", "allowed_by_approval"]);
});
