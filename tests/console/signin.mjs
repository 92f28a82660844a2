// Signing in and out, and what the cookie is.

import assert from "node:assert/strict";
import { admin, signIn, walk } from "./browser.mjs";

await walk(async (page, { context, expect }) => {
  expect(/401/);
  await page.goto(`${admin}/`);
  await page.getByLabel("Admin token").fill("wrong-wrong-wrong-wrong-wrong-wrong-wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("Not signed in: this is not the token").waitFor();
  assert.equal((await context.cookies()).length, 0);

  await signIn(page);
  assert.equal(new URL(page.url()).pathname, "/");
  const [cookie, ...others] = await context.cookies();
  assert.deepEqual(others, []);
  assert.equal(cookie.name, `outgate_console_${new URL(admin).port}`);
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path], [true, "Strict", "/"]);
  assert.ok(!cookie.value.includes(process.env.TOKEN));
  const seen = await page.evaluate(() => [document.cookie, JSON.stringify(localStorage)]);
  assert.equal(seen[0], "");
  assert.ok(!seen[1].includes(process.env.TOKEN), "the token stays in the page");

  // The cookie alone changes nothing, even from our own page.
  const reload = (headers) => page.evaluate(async (headers) => (await fetch("/api/policy/reload", { method: "POST", headers })).status, headers);
  expect(/403/);
  assert.equal(await reload({}), 403);
  assert.equal(await reload({ "x-outgate-csrf": await page.evaluate(() => localStorage.getItem("outgate.csrf")) }), 200);

  // A second window is signed in, too.
  const second = await context.newPage();
  await second.goto(admin);
  await second.locator("#nav").waitFor();

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Admin token").waitFor();
  assert.equal((await context.cookies()).length, 0);
  await context.addCookies([cookie]);
  const status = await page.evaluate(async () => (await fetch("/api/status")).status);
  assert.equal(status, 401, "the sign-in itself is over, not only the cookie gone");
  await second.reload();
  await second.getByLabel("Admin token").waitFor();
});
