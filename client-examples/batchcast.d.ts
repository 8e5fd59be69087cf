/** Types of batchcast.js. What the server says is in docs/protocol.md; these are its shapes. */

export interface Viewport { west: number; south: number; east: number; north: number }
export interface Location { latitude: number; longitude: number }

export interface Filter {
  dateRange?: { start?: string | number | null; end?: string | number | null } | null;
  location?: (Location & { radius: number }) | null;
  categories?: { include?: string[]; exclude?: string[] } | null;
  status?: Status[];
  text?: string | null;
}

export type Status = "PENDING" | "VERIFIED" | "REJECTED" | "EXPIRED";
export type Reason = "left_view" | "outranked" | "filtered" | "ended" | "removed" | "hidden";
export type ChangeType = "replace-all" | "add-event" | "update-event" | "delete-event" | "changes" | "batch-update";
export type ErrorCode =
  | "bad_json" | "bad_message" | "bad_viewport" | "bad_filter" | "too_large" | "too_many" | "unauthorized" | "forbidden"
  | "not_registered" | "not_found" | "conflict" | "unavailable" | "shutting_down";

/** An event as a viewer holds it. Counters beyond 2^53 lose their last digits, as all numbers in JavaScript do. */
export interface LiveEvent {
  id: string;
  version: number;
  title: string;
  emoji: string | null;
  description: string | null;
  categories: string[];
  location: Location;
  start: string;
  end: string | null;
  timezone: string | null;
  status: Status;
  scanCount: number;
  saveCount: number;
  rsvpCount: number;
  confidence: number | null;
  isPrivate: boolean;
  creatorId: string | null;
  recurrence: string | null;
  priority: "normal" | "high";
  createdAt: string;
  updatedAt: string;
  properties: Record<string, unknown> | null;
  relevanceScore: number;
}

/** A cell of the map (a tile of the slippy map, level/x/y), and how many of the events that match lie in it, shown or not. */
export interface Cluster { cell: string; location: Location; count: number; topEventId: string }

export interface Message { type: string; ref?: string; [field: string]: unknown }

export interface Change {
  /** A ChangeType; a server of tomorrow may have more. */
  type: ChangeType | (string & {});
  creates: LiveEvent[];
  /** Whole events, or with `fields: "delta"` what changed of them; `client.events` has them whole. */
  updates: (LiveEvent | (Pick<LiveEvent, "id" | "version"> & Partial<LiveEvent>))[];
  deletes: string[];
  reasons: Record<string, Reason>;
  /** What was held before under the ids of this change. */
  before: Map<string, LiveEvent>;
  /** Were `seq` and `digest` right afterwards? If not a resync is under way. */
  matches: boolean;
  message: Message;
}

export interface State {
  name: "idle" | "connecting" | "live" | "lost" | "failed";
  since: number;
  attempt: number;
  retryAt: number | null;
  reason: string | null;
}

export interface Authenticated { sub: string | null; roles: string[]; expiresAt: string | null }

export interface Emitted {
  state: State;
  registered: Message;
  change: Change;
  digest: { checked: boolean; matches: boolean };
  authenticated: Authenticated;
  "signed-out": { reason: string };
  topic: Message;
  problem: Error;
}

/** `fresh`: the last one has expired, is about to, or was not taken. Null or nothing: go on as nobody. */
export type TokenHook = (asked: { fresh: boolean }) => string | null | undefined | Promise<string | null | undefined>;

/** What of a WebSocket is used: a browser's, Node's own, that of the package ws. */
export interface WebSocketLike {
  readonly readyState: number;
  readonly bufferedAmount: number;
  onopen: ((event: any) => any) | null;
  onmessage: ((event: any) => any) | null;
  onclose: ((event: any) => any) | null;
  onerror: ((event: any) => any) | null;
  send(text: string): void;
  close(code?: number): void;
}

export interface Options {
  url: string;
  /** Where there is no global one. */
  WebSocket?: new (url: string) => WebSocketLike;
  viewport?: Viewport;
  filters?: Filter[];
  token?: string | TokenHook;
  /** When a token is not taken, or has expired and there is no other: go on as nobody instead of giving up. */
  anonymous?: boolean;
  maxEvents?: number;
  location?: Location;
  fields?: "full" | "delta";
  reasons?: boolean;
  clusters?: boolean;
  minIntervalMs?: number;
  maxBytesPerBatch?: number;
  /** False: a lost connection is the end. */
  reconnect?: boolean;
  /** After so much silence ask for a sign of life, and wait so long for it. */
  quietMs?: number;
  pulseMs?: number;
  /** A number from 0 to 1; Math.random unless a test says otherwise. */
  jitter?: () => number;
}

export class Refusal extends Error {
  constructor(said?: { code?: string; message?: string; field?: string; limit?: number; retry?: boolean; retryAfterMs?: number });
  code: ErrorCode | (string & {});
  field: string | undefined;
  limit: number | undefined;
  retry: boolean;
  retryAfterMs: number | undefined;
}

export class Lost extends Refusal {
  constructor(message: string, sent: boolean);
  /** If so nobody knows whether it was carried out. */
  sent: boolean;
}

export class View {
  events: Map<string, LiveEvent>;
  clusters: Cluster[];
  seq: number;
  get digest(): string;
  ranked(): LiveEvent[];
  held(): [string, number][] | undefined;
  apply(message: Message): Change;
}

export class BatchcastClient {
  constructor(options: Options);
  readonly state: State;
  readonly registered: Partial<Message>;
  readonly session: string | null;
  readonly roles: string[];
  readonly sub: string | null;
  readonly clockOffset: number;
  readonly nextBatchAt: number | null;
  readonly config: Record<string, unknown>;
  readonly connections: number;
  readonly divergences: number;
  get events(): ReadonlyMap<string, LiveEvent>;
  get clusters(): readonly Cluster[];
  get digest(): string;
  get seq(): number;
  get viewport(): Viewport | null;
  get filters(): Filter[];
  get live(): boolean;
  get topics(): Set<string>;
  ranked(): LiveEvent[];
  on<Name extends keyof Emitted>(name: Name, listener: (detail: Emitted[Name]) => void): () => void;
  start(viewport?: Viewport | null): void;
  ready(): Promise<this>;
  close(): void;
  retryNow(): void;
  setViewport(viewport: Viewport): Promise<Message | undefined>;
  setFilters(filters: Filter[]): Promise<Message | undefined>;
  setMaxEvents(maxEvents: number): Promise<Message | undefined>;
  explain(eventId: string): Promise<Message>;
  forceBatch(): Promise<Message>;
  resync(how?: { held?: boolean }): Promise<Message>;
  subscribe(topic: string): Promise<Message | undefined>;
  unsubscribe(topic: string): Promise<Message | undefined>;
  signIn(token: string): Promise<void>;
  signOut(reason?: string): void;
  request(message: Message, how?: { timeoutMs?: number }): Promise<Message>;
}

export const COME_BACK: Readonly<Record<number, "no" | "named" | "token" | "slower">>;
export function sha256(text: string): Int32Array;
export function termOf(event: { id: string; version: number }): bigint;
