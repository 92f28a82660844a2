// A hundred thousand decisions in the list: it stays smooth, holds few elements, and the last one can be reached.

import assert from "node:assert/strict";
import { ask, show, signIn, walk } from "./browser.mjs";

const ROWS = 100_000;
/** What a frame costs while it is scrolled, in milliseconds of the processor, drawing in software included: generous. */
const SMOOTH = 40;

await walk(async (page, { context }) => {
  await signIn(page);
  await show(page, "#/decisions");
  const body = page.locator(".grid-body");
  await page.locator(".grid-row").first().waitFor();
  await page.locator(".grid").focus();
  const loaded = () => page.locator(".grid").getAttribute("aria-rowcount").then((count) => Number(count) - 1);
  for (let pages = 0; (await loaded()) < ROWS; pages += 1) {
    assert.ok(pages < 60, `only ${await loaded()} were loaded`);
    const before = await loaded();
    await page.keyboard.press("End");
    await page.waitForFunction((before) => Number(document.querySelector(".grid").ariaRowCount) - 1 > before, before, { timeout: 30_000 });
  }
  assert.equal(await loaded(), ROWS);
  await page.getByText("shown; a filter finds older ones").waitFor();
  await page.keyboard.press("End");
  assert.equal(await page.locator('.grid-row[aria-selected="true"]').getAttribute("aria-rowindex"), String(ROWS + 1));
  assert.ok((await page.locator(".grid-row").count()) < 80, "rows that nobody sees exist");

  // Time of the page's own thread: what others do on this machine at the same time is not its doing.
  const metrics = await context.newCDPSession(page);
  await metrics.send("Performance.enable", { timeDomain: "threadTicks" });
  const spent = async () => (await metrics.send("Performance.getMetrics")).metrics.find(({ name }) => name === "TaskDuration").value * 1000;
  const already = await spent();
  const frames = await page.evaluate(async () => {
    const body = document.querySelector(".grid-body");
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    const took = [];
    let last = await frame();
    for (let step = 0; step < 180; step += 1) {
      // First as a wheel does, then as somebody who drags the bar.
      body.scrollTop = step < 120 ? body.scrollHeight - 40_000 - step * 170 : (step - 120) * 53_000;
      const now = await frame();
      took.push(now - last);
      last = now;
    }
    return took.sort((a, b) => a - b);
  });
  const cost = (await spent() - already) / frames.length;
  console.log(`MEASURED: ${ROWS} rows: a frame costs ${cost.toFixed(1)} ms; between frames pass ${frames[90].toFixed(1)} ms, ${frames[171].toFixed(1)} ms at the 95th percentile`);
  assert.ok(cost < SMOOTH, `a frame costs ${cost} ms`);

  // New ones are merged in as quickly, and what is looked at stays.
  await body.evaluate((element) => (element.scrollTop = 1_000_000));
  await page.waitForTimeout(100);
  const where = () => body.evaluate((element) => element.scrollTop);
  const before = await where();
  await ask("http://new.test/");
  await page.getByRole("button", { name: "↑ 1 new" }).waitFor();
  assert.equal(await where(), before + 34);
});
