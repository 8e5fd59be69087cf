/* Lets a test drive the client of client-examples/batchcast.js: one command in, one reply out, in Node and in a browser alike.
 *
 *   {do: "open", options}                 a client; `tokens`: what its token hook gives, one after the other, the last again and again
 *   {do: "look"}                          what can be seen of it, see `look`
 *   {do: "ask", messages}                 all of them at once; the answers in the same order
 *   {do: "turn", what, value}             setViewport or setFilters
 *   {do: "close"}
 *   {do: "run", body}                     a function's body with `client`, `seen` and `BatchcastClient`; what only JavaScript has
 */

import { BatchcastClient, Lost, Refusal } from "../../client-examples/batchcast.js";

// Waits are short, but not nothing: a test may keep the server away for a while.
const JITTER = 0.1;
const AsyncFunction = (async () => {}).constructor;
let client = null;
let seen = null;

export async function handle(command) {
  try {
    return (await COMMANDS[command.do](command)) ?? {};
  } catch (error) {
    return told(error);
  }
}

const COMMANDS = {
  open({ options }) {
    const { tokens, ...others } = options;
    seen = { changes: [], problems: [], states: [], fresh: 0 };
    client = new BatchcastClient({ jitter: () => JITTER, ...others, ...(tokens && { token: hook(tokens) }) });
    client.on("change", ({ type, creates, updates, deletes, matches, reasons }) => seen.changes.push({ type, matches, reasons, creates: ids(creates), updates: ids(updates), deletes }));
    client.on("problem", ({ code, message }) => seen.problems.push(code ?? message));
    client.on("state", ({ name }) => seen.states.push(name));
    client.start();
  },
  look,
  ask: ({ messages }) => Promise.all(messages.map((message) => client.request(message).catch(told))).then((answers) => ({ answers })),
  turn: async ({ what, value }) => ({ answer: (await (what === "viewport" ? client.setViewport(value) : client.setFilters(value))) ?? null }),
  close: () => client?.close(),
  run: async ({ body }) => ({ result: await new AsyncFunction("client", "seen", "BatchcastClient", body)(client, seen, BatchcastClient) }),
};

function hook(tokens) {
  const left = [...tokens];
  return async ({ fresh }) => {
    seen.fresh += fresh;
    return left.length > 1 ? left.shift() : left[0];
  };
}

const ids = (events) => events.map(({ id }) => id);

function look() {
  const ranked = client.ranked();
  return {
    state: client.state.name,
    reason: client.state.reason,
    ranked: ids(ranked),
    held: Object.fromEntries(ranked.map(({ id, version }) => [id, version])),
    titles: Object.fromEntries(ranked.map(({ id, title }) => [id, title ?? null])),
    scores: Object.fromEntries(ranked.map(({ id, relevanceScore }) => [id, relevanceScore])),
    clusters: client.clusters,
    digest: client.digest,
    seq: client.seq,
    session: client.session,
    recovered: client.registered.recovered ?? null,
    connections: client.connections,
    divergences: client.divergences,
    ...seen,
  };
}

function told(error) {
  if (error instanceof Lost) return { lost: error.message };
  if (error instanceof Refusal) return { refused: error.code, field: error.field ?? null, retry: error.retry };
  return { broken: String(error?.stack ?? error) };
}
