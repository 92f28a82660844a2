// Every page in light and dark, wide and narrow, with what is hostile in every field: nothing runs, nothing reaches over
// the edge, nothing is against the page's own policy. Leaves a picture of each.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { everyTextCanBeRead, nothingOverTheEdge, show, shots, signIn, walk } from "./browser.mjs";

const PAGES = ["overview", "decisions", "approvals", "destinations", "uploads", "sessions", "agents", "policy", "alerts", "audit"];
const WINDOWS = [["wide", { width: 1440, height: 900 }], ["narrow", { width: 360, height: 740 }]];

mkdirSync(shots, { recursive: true });

for (const colours of ["light", "dark"]) {
  await walk(async (page) => {
    for (const [size, viewport] of WINDOWS) {
      await page.setViewportSize(viewport);
      const picture = (name) => page.screenshot({ path: `${shots}/${name}-${colours}-${size}.png` });
      await page.goto(`${process.env.ADMIN}/login`);
      await page.getByLabel("Admin token").waitFor();
      await picture("sign-in");
      await signIn(page);
      for (const name of PAGES) {
        await show(page, `#/${name}`);
        await page.locator("main h1").waitFor({ state: "attached" });
        await page.waitForFunction(() => !document.querySelector("main").textContent.includes("Loading…"));
        await page.waitForTimeout(250);
        await nothingOverTheEdge(page, `${name} (${size}, ${colours})`);
        await everyTextCanBeRead(page, `${name} (${size}, ${colours})`);
        await picture(name);
      }
      await show(page, "#/decisions");
      await page.locator(".grid-row").nth(2).click();
      await page.getByText("Why, rule by rule").waitFor();
      await page.waitForTimeout(300);
      await nothingOverTheEdge(page, `a decision (${size}, ${colours})`);
      await everyTextCanBeRead(page, `a decision (${size}, ${colours})`);
      await picture("decision");
      const ran = await page.evaluate(() => [globalThis.pwned, document.querySelectorAll("main img, main script, main iframe").length]);
      assert.deepEqual(ran, [undefined, 0], "what was text became part of the page");
      await page.evaluate(() => document.querySelector(".pane").hidden || document.querySelector(".pane .close").click());
      await page.getByRole("button", { name: "Keys" }).click();
      await page.getByRole("dialog").waitFor();
      await nothingOverTheEdge(page, `keys (${size}, ${colours})`);
      await picture("keys");
    }
  }, { colorScheme: colours });
}
