#!/usr/bin/env -S node --experimental-websocket
/* Follow a part of the map and print what changes: node client-examples/node_client.mjs [ws://HOST:8081/ws] [w,s,e,n]
 *
 * Node 22 and later have a WebSocket. Node 20 has one when it is started with --experimental-websocket (as this file does when it is
 * run by itself), or takes the one of `npm install ws`. Everything a client has to get right is in batchcast.js; copy that file.
 *
 * A token, if you have one, goes into the environment (BATCHCAST_TOKEN), never into the address.
 */

import process from "node:process";
import { BatchcastClient } from "./batchcast.js";

const WORLD = [-180, -85, 180, 85];
const NONE = "There is no WebSocket: use Node 22, or node --experimental-websocket, or npm install ws.";

async function webSocket() {
  if (globalThis.WebSocket !== undefined) return globalThis.WebSocket;
  const { WebSocket } = await import("ws").catch(() => ({}));
  return WebSocket;
}

function tell({ type, creates, updates, deletes, reasons, matches }, client) {
  const words = matches ? "digest ok" : "DIGEST DIFFERS, asking for a resync";
  console.log(`${type}: +${creates.length} ~${updates.length} -${deletes.length}, ${words}`);
  for (const { title } of creates) console.log(`   + ${title}`);
  for (const id of deletes) console.log(`   - ${id} (${reasons[id] ?? "gone"})`);
  console.log(`   holding ${client.events.size}, best: ${client.ranked()[0]?.title ?? "nothing"}`);
}

async function follow(url, [west, south, east, north]) {
  const WebSocket = await webSocket();
  if (WebSocket === undefined) throw new Error(NONE);
  const token = process.env.BATCHCAST_TOKEN;
  const client = new BatchcastClient({ url, WebSocket, token, viewport: { west, south, east, north }, maxEvents: 20 });
  const stop = () => client.close();
  ["SIGINT", "SIGTERM"].forEach((signal) => process.once(signal, stop));
  client.start();
  await client.ready();
  client.on("state", ({ name, reason }) => {
    if (name === "lost") console.error(`lost: ${reason}; coming back`);
    if (name === "failed") process.exitCode = console.error(reason) ?? 1;
  });
  console.log(`${client.events.size} events in view; the next batch is due at ${client.nextBatchAt}`);
  client.ranked().slice(0, 10).forEach(({ relevanceScore, emoji, title }, place) => {
    console.log(`${String(place + 1).padStart(3)}. ${relevanceScore.toFixed(4)} ${emoji ?? " "} ${title}`);
  });
  client.on("change", (change) => tell(change, client));
}

const [url = "ws://127.0.0.1:8081/ws", box] = process.argv.slice(2);
follow(url, box ? box.split(",").map(Number) : WORLD).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
