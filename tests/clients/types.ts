/* Compiled, never run: a program that uses all that batchcast.d.ts declares. What must not compile says so. */

import { BatchcastClient, COME_BACK, Lost, Refusal, View, sha256, termOf } from "../../client-examples/batchcast.js";
import type { Change, LiveEvent, Message, Options, TokenHook, Viewport } from "../../client-examples/batchcast.js";

const viewport: Viewport = { west: 5, south: 45, east: 20, north: 55 };
const hook: TokenHook = async ({ fresh }) => (fresh ? null : "token");
const options: Options = { url: "ws://localhost:8081/ws", WebSocket, viewport, token: hook, clusters: true, filters: [{ status: ["VERIFIED"], text: "jazz" }] };
const client = new BatchcastClient(options);

function draw({ creates, updates, deletes, reasons, before, matches }: Change): void {
  const titles: string[] = creates.map(({ title }) => title);
  const gone = deletes.map((id) => reasons[id] ?? before.get(id)?.title);
  const versions: number[] = updates.map(({ version }) => version);
  console.log(titles, gone, versions, matches);
}

export async function use(): Promise<void> {
  const end: () => void = client.on("change", draw);
  client.on("state", ({ name, retryAt }) => console.log(name === "lost" ? retryAt : name));
  client.on("problem", (error) => error instanceof Refusal && console.log(error.code, error.retry));
  client.on("signed-out", ({ reason }) => console.log(reason));
  client.start(viewport);
  const same: BatchcastClient = await client.ready();
  const best: LiveEvent | undefined = same.ranked()[0];
  const crowds: number[] = same.clusters.map(({ count, location }) => count * Math.sign(location.latitude));
  const answer: Message | undefined = await client.setViewport({ ...viewport, west: 6 });
  await client.setFilters([{ categories: { include: ["music"] } }]);
  await client.request({ type: "popularity-update", eventId: best?.id, delta: { rsvpCount: 1 }, updateId: "u1" }, { timeoutMs: 1000 });
  await client.subscribe("loops").catch((error: Lost) => error.sent);
  console.log(answer?.type, client.events.get("jazz")?.relevanceScore, COME_BACK[1012], sha256("")[0], termOf({ id: "a", version: 1 }) + 1n);
  console.log(crowds, new View().clusters[0]?.topEventId, new View().held()?.length, client.topics.size, client.registered.recovered);
  end();
  client.close();
}

// @ts-expect-error: an address is always needed
new BatchcastClient({});
// @ts-expect-error: there is no such event
client.on("changed", draw);
// @ts-expect-error: so is what it was told of clusters
client.clusters.pop();
// @ts-expect-error: what is held is the client's own
client.events.delete("jazz");
// @ts-expect-error: a viewport has four sides
client.setViewport({ west: 1, south: 2, east: 3 });
