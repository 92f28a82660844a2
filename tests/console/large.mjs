// A hundred thousand decisions in the list: it stays smooth, holds few elements, and the last one can be reached.

import assert from "node:assert/strict";
import { ask, show, signIn, walk } from "./browser.mjs";

const ROWS = 100_000;
/** Between two frames while it is scrolled, for nineteen of twenty: generous, the machine is shared and small. */
const SMOOTH = 120;

await walk(async (page) => {
  await signIn(page);
  await show(page, "#/decisions");
  const body = page.locator(".grid-body");
  await page.locator(".grid-row").first().waitFor();
  await body.focus();
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
  const at = (share) => frames[Math.floor(frames.length * share)].toFixed(1);
  console.log(`MEASURED: ${ROWS} rows: a frame takes ${at(0.5)} ms, ${at(0.95)} ms at the 95th percentile, ${at(0.999)} ms at most`);
  assert.ok(Number(at(0.95)) < SMOOTH, `frames take ${at(0.95)} ms`);

  // New ones are merged in as quickly, and what is looked at stays.
  await body.evaluate((element) => (element.scrollTop = 1_000_000));
  await page.waitForTimeout(100);
  const where = () => body.evaluate((element) => element.scrollTop);
  const before = await where();
  await ask("http://new.test/");
  await page.getByRole("button", { name: "↑ 1 new" }).waitFor();
  assert.equal(await where(), before + 34);
});
