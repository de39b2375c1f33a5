// A person at the monitor's page, in headless Chromium: node page.mjs PICTURES. Reads commands as JSON lines and answers each with one:
// {"event": "done", ...} or {"event": "failed", "why"}. Runs until its input ends.
import { createInterface } from 'node:readline';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const pictures = process.argv[2];
mkdirSync(pictures, { recursive: true });
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PATIENCE_MS = 10_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});
const page = await (await browser.newContext()).newPage();
page.setDefaultTimeout(PATIENCE_MS);
// The longest that the page kept the browser from anything else.
await page.addInitScript(() => {
  globalThis.longest = 0;
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) globalThis.longest = Math.max(globalThis.longest, duration);
  }).observe({ type: 'longtask' });
});
// What the page itself complains about, refused scripts and styles included.
const complaints = [];
page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
page.on('pageerror', (failure) => complaints.push(String(failure)));

const commands = {
  open: async ({ url }) => { await page.goto(url); },
  // Looks again and again: figures change.
  text: async ({ of }) => ({ text: await page.locator(of).innerText() }),
  wait: async ({ of, text }) => { await page.locator(of).filter({ hasText: text }).first().waitFor(); },
  click: async ({ role, name }) => { await page.getByRole(role, { name, exact: true }).first().click(); },
  fill: async ({ label, value }) => { await page.getByLabel(label, { exact: true }).fill(value); },
  choose: async ({ label, value }) => { await page.getByLabel(label, { exact: true }).selectOption(value); },
  press: async ({ key }) => { await page.keyboard.press(key); },
  focused: async () => ({ text: await page.evaluate(() => document.activeElement?.textContent ?? '') }),
  look: async ({ width, height, scheme }) => {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: scheme });
  },
  picture: async ({ name }) => { await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true }); },
  // Whether the page is wider than what shows it.
  overflow: async () => ({ pixels: await page.evaluate(() => document.documentElement.scrollWidth - innerWidth) }),
  // Serious faults for those who cannot see or point.
  axe: async () => {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
    return { faults: serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`) };
  },
  longest: async () => ({ ms: await page.evaluate(() => globalThis.longest) }),
  complaints: async () => ({ complaints: complaints.splice(0) }),
};

console.log(JSON.stringify({ event: 'done' }));
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...rest } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ event: 'done', ...(await commands[command](rest)) }));
  } catch (failure) {
    await page.screenshot({ path: `${pictures}/failed.png` }).catch(() => {});
    console.log(JSON.stringify({ event: 'failed', why: String(failure) }));
  }
}
await browser.close();
