// Decisions arrive; what is chosen and what is looked at stay; filters and keys do what they say.

import assert from "node:assert/strict";
import { api, ask, show, signIn, walk } from "./browser.mjs";

const rows = (page) => page.locator(".grid-row:visible");
const chosen = (page) => page.locator('.grid-row[aria-selected="true"]');
const first = (page) => page.evaluate(() => [...document.querySelectorAll(".grid-row:not([hidden])")].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)[0]?.textContent);

await walk(async (page) => {
  await signIn(page);
  await show(page, "#/decisions");
  await page.getByText("Nothing has asked yet").waitFor();

  // They arrive, newest first.
  for (const number of [1, 2, 3]) {
    assert.equal(await ask(`http://one.test/number-${number}`), 403);
    await page.getByText(`/number-${number}`).waitFor();
  }
  assert.match(await first(page), /number-3/);
  await page.getByText("3 decisions").waitFor();

  // Keys: j chooses, Enter opens, Esc closes, k goes back.
  await page.keyboard.press("j");
  assert.match(await chosen(page).textContent(), /number-3/);
  await page.keyboard.press("j");
  await page.keyboard.press("ArrowDown");
  assert.match(await chosen(page).textContent(), /number-1/);
  await page.keyboard.press("k");
  assert.match(await chosen(page).textContent(), /number-2/);
  await page.keyboard.press("Enter");
  const pane = page.getByRole("complementary", { name: "Decision" });
  await pane.getByText("Why, rule by rule").waitFor();
  await pane.getByText("the default of class unknown").waitFor();
  await pane.getByText("outgate policy allow one.test", { exact: false }).waitFor();
  assert.ok(await pane.evaluate((element) => element === document.activeElement));

  // New ones do not take the choice, nor the pane.
  await ask("http://one.test/number-4");
  await page.locator(".grid-row", { hasText: "/number-4" }).waitFor();
  assert.match(await chosen(page).textContent(), /number-2/);
  assert.match(await pane.textContent(), /number-2/);
  await page.keyboard.press("Escape");
  await pane.waitFor({ state: "hidden" });

  // Scrolled down, what is looked at stays where it is, and it is said how many are new.
  await Promise.all(Array.from({ length: 80 }, (_, number) => ask(`http://two.test/many-${number}`)));
  await page.getByText("84 decisions").waitFor();
  const body = page.locator(".grid-body");
  await body.evaluate((element) => (element.scrollTop = 1003));
  await page.waitForTimeout(100);
  const look = () => page.evaluate(() => {
    const top = document.querySelector(".grid-body").getBoundingClientRect().top;
    const below = [...document.querySelectorAll(".grid-row:not([hidden])")].filter((row) => row.getBoundingClientRect().bottom > top + 1);
    const row = below.sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)[0];
    return [row.textContent, Math.round(row.getBoundingClientRect().top - top)];
  });
  const before = await look();
  await Promise.all([1, 2, 3, 4, 5].map((number) => ask(`http://three.test/late-${number}`)));
  await page.getByRole("button", { name: "↑ 5 new" }).waitFor();
  assert.deepEqual(await look(), before);
  await page.getByRole("button", { name: "↑ 5 new" }).click();
  assert.equal(await body.evaluate((element) => element.scrollTop), 0);
  assert.match(await first(page), /late-/);

  // At the top they follow, but not under a finger that is about to answer.
  const pointed = page.locator(".grid-row", { hasText: "/late-" }).first();
  await pointed.hover();
  const still = await pointed.evaluate((element) => [element.textContent, Math.round(element.getBoundingClientRect().top)]);
  await ask("http://three.test/slips-in");
  await page.getByRole("button", { name: "↑ 1 new" }).waitFor();
  const now = await page.evaluate((top) => [...document.querySelectorAll(".grid-row:not([hidden])")].find((row) => Math.round(row.getBoundingClientRect().top) === top).textContent, still[1]);
  assert.equal(now, still[0]);
  await page.mouse.move(5, 5);
  await page.getByRole("button", { name: "↑ 1 new" }).click();

  // A filter: what it means, what it refuses, what arrives under it.
  const filter = page.getByLabel("Filter", { exact: true });
  await page.keyboard.press("/");
  assert.ok(await filter.evaluate((element) => element === document.activeElement));
  await filter.fill("host:one.test action:deny");
  await filter.press("Enter");
  await page.getByText("4 decisions").waitFor();
  await ask("http://two.test/not-shown");
  await ask("http://one.test/shown");
  await page.locator(".grid-row", { hasText: "/shown" }).waitFor();
  assert.equal(await rows(page).filter({ hasText: "two.test" }).count(), 0);
  assert.match(page.url(), /filter=host/);
  for (const [text, said] of [
    ["action:block", "action: takes allow, ask, deny, not “block”"],
    ["colour:red", "“colour:red” is no condition"],
    ["since:yesterday", "since: takes 30m"],
    ["host:a host:b", "host: stands twice"],
    ["class:", "class: wants a value"],
  ]) {
    await filter.fill(text);
    await filter.press("Enter");
    await page.getByText(said).waitFor();
  }
  for (const [text, number] of [["host:*.test reason:unknown_destination agent:anonymous since:1h class:unknown", "92 decisions"], ["class:model", null], ["finding:secret", null], ["three.test", "6 decisions"]]) {
    await filter.fill(text);
    await filter.press("Enter");
    await page.getByText(number ?? "No decision fits this filter").waitFor();
  }

  // Kept filters stay after a reload, and are forgotten on demand.
  await filter.fill("host:three.test");
  await filter.press("Enter");
  await page.getByRole("button", { name: "Keep this filter" }).click();
  await page.reload();
  await page.getByRole("button", { name: "host:three.test", exact: true }).waitFor();
  await page.getByText("6 decisions").waitFor();
  await page.getByRole("button", { name: "Forget the filter host:three.test" }).click();
  await page.getByRole("button", { name: "host:three.test", exact: true }).waitFor({ state: "hidden" });

  // The other pages by keys.
  await page.locator("main").focus();
  for (const [key, title] of [["s", "Sessions"], ["n", "Agents"], ["p", "Policy"], ["r", "Audit"], ["t", "Destinations"], ["u", "Uploads and secrets"], ["l", "Alerts"], ["a", "Approvals"], ["o", "Overview"]]) {
    await page.keyboard.press("g");
    await page.keyboard.press(key);
    await page.getByRole("heading", { level: 1, name: title }).waitFor();
  }
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });

  // Every control can be reached by the tab key, and shows that it has been.
  const reached = new Set();
  for (let step = 0; step < 60; step += 1) {
    await page.keyboard.press("Tab");
    const [name, seen] = await page.evaluate(() => {
      const element = document.activeElement;
      return [element.textContent.trim() || element.id, element === document.body || getComputedStyle(element).outlineStyle !== "none" || getComputedStyle(element.nextElementSibling ?? element).outlineStyle !== "none"];
    });
    assert.ok(seen, `the focus on ${name} is not seen`);
    reached.add(name);
  }
  for (const wanted of ["Decisions", "Audit", "Sign out", "?"]) assert.ok([...reached].some((name) => name.startsWith(wanted)), `${wanted} is not reached: ${[...reached]}`);

  // Colours: as the machine has them, light, dark; and so after a reload.
  const colours = () => page.evaluate(() => [document.documentElement.dataset.theme, getComputedStyle(document.body).colorScheme]);
  for (const wanted of ["light", "dark"]) {
    await page.locator("#theme").click();
    assert.equal((await colours())[0], wanted);
  }
  await page.reload();
  assert.equal((await colours())[0], "dark");
  await page.locator("#theme").click();
  assert.equal((await colours())[0], undefined);

  // Agents: added, given a new token, revoked.
  await show(page, "#/agents");
  await page.getByText("No agent is registered").waitFor();
  await page.getByRole("button", { name: "Add an agent" }).click();
  await page.getByLabel("Name").fill("claude");
  await page.getByLabel("Owner, who answers for it").fill("ana@example.com");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: "The token of claude" });
  const token = (await dialog.locator("code").first().textContent()).trim();
  assert.match(token, /^outgate_/);
  await dialog.getByRole("button", { name: "Close" }).click();
  const credentials = Buffer.from(`claude:${token}`).toString("base64");
  assert.equal(await ask("http://one.test/by-claude", { headers: { "proxy-authorization": `Basic ${credentials}` } }), 403);
  assert.equal((await api("/api/decisions?agent=claude")).told.length, 1);
  await page.getByRole("button", { name: "Revoke claude" }).click();
  await page.getByRole("button", { name: "Revoke", exact: true }).last().click();
  await page.getByText("revoked", { exact: true }).waitFor();
  assert.equal(await ask("http://one.test/by-claude", { headers: { "proxy-authorization": `Basic ${credentials}` } }), 407);

  // The policy is asked, and says whom it met.
  await show(page, "#/policy");
  await page.getByLabel("URL").fill("https://one.test/");
  await page.getByRole("button", { name: "Explain" }).click();
  await page.getByText("unknown destination; class unknown").waitFor();
  await page.getByText("default of class unknown").waitFor();

  // And the record.
  await show(page, "#/audit");
  await page.getByText("records are intact").waitFor();
});
