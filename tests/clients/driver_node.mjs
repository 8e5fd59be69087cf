/* The driver as a Node program: JSON lines in, JSON lines out. With WS_MODULE the WebSocket is that of the package there. */

import { createInterface } from "node:readline";
import { handle } from "./driver.js";

const { WS_MODULE } = process.env;
const WebSocket = WS_MODULE ? (await import(WS_MODULE)).WebSocket : undefined;

createInterface({ input: process.stdin }).on("line", async (line) => {
  const { number, ...command } = JSON.parse(line);
  if (WebSocket !== undefined && command.do === "open") command.options.WebSocket = WebSocket;
  process.stdout.write(`${JSON.stringify({ number, reply: await handle(command) })}\n`);
});
