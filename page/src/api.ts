// The monitor's JSON API: its shapes, and asking it again and again.

import { useEffect, useRef, useState } from "preact/hooks";

import { readToken } from "./token";

export interface Rights {
  requests: boolean;
  replay: boolean;
  edit: boolean;
}

export interface GatewayName {
  namespace: string;
  name: string;
}

export interface Root {
  release: string;
  gateways: GatewayName[];
}

export interface Flow {
  arrivedPerMinute: number;
  deliveredPerMinute: number;
  failedPerMinute: number;
  arrived: number;
  delivered: number;
  failed: number;
  waiting: number;
  parked: number;
  oldestSeconds: number;
  limitPerMinute: number | null;
  sentPerMinute: number | null;
  held: string;
}

export interface Application extends Flow {
  name: string;
}

export interface Applications {
  applications: Application[];
  found: number;
  total: number;
}

export interface Pod {
  name: string;
  state: string;
  reason: string;
  reporting: boolean;
  reportedSecondsAgo: number | null;
  node: string | null;
  zone: string | null;
  release: string;
  connections: number;
  fair: number;
  cpuCores: number;
  cpuRequestCores: number | null;
  memoryBytes: number;
  memoryLimitBytes: number;
  loopDelayMs: number;
  overloadLevel: number;
  arrivedPerMinute: number;
  deliveredPerMinute: number;
  waiting: number;
}

export interface Upstream {
  name: string;
  succeededPerMinute: number;
  succeeded: number;
  failed: number;
  inFlight: number;
  inFlightLimit: number;
  pacePerMinute: number | null;
  closed: number;
  pods: number;
  wanted: boolean;
}

export interface Scale {
  replicas: number;
  wanted: number;
  wish: number;
  reason: string;
  limit: string | null;
  waits: string | null;
  victim: string | null;
}

export interface Snapshot {
  learning: boolean;
  activity: string | null;
  flow: Flow;
  queueBytes: number;
  connections: number;
  messagesInPerSecond: number;
  messagesOutPerSecond: number;
  scale: Scale | null;
  pods: Pod[];
  upstreams: Upstream[];
  applications: number;
}

export interface Series {
  stepSeconds: number;
  from: number;
  columns: Record<string, (number | null)[]>;
}

export interface Verdict {
  reason: string;
  httpStatus: number | null;
  attempts: number;
  upstream: string;
  at: string;
}

export interface Found {
  id: string;
  application: string;
  key?: string;
  keyBase64?: string;
  state: string;
  acceptedAt: string;
  bytes: number;
  replayOf?: string;
  verdict?: Verdict;
}

export interface FoundPage {
  requests: Found[];
  next: string | null;
}

export interface Shown extends Found {
  request: {
    error?: string;
    method?: string;
    target?: string;
    targetBase64?: string;
    headers?: [string, string][];
    client?: string;
    body?: string;
    bodyBase64?: string;
    bodyBytes?: number;
    bodyTruncated?: boolean;
  };
}

export interface Delivery {
  attempts: number;
  backoffInitialSeconds: number;
  backoffMaxSeconds: number;
  timeoutSeconds: number;
}

export interface Settings {
  source: "Manifests" | "Kubernetes";
  gateway: {
    requestsPerMinute: number | null;
    durability: string;
    retentionSeconds: number;
    retentionBytes: number;
    delivery: Delivery;
  } | null;
  applications: {
    name: string;
    requestsPerMinute: number | null;
    weight: number;
    paused: boolean;
    retentionSeconds: number | null;
    delivery: Delivery | null;
  }[];
}

/** An object in which settings are written, as it is now. */
export interface Written {
  kind: string;
  namespace: string;
  name: string;
  generation: number;
  spec: Record<string, unknown>;
  /** What the operator makes of it. */
  ready: { status: string; reason: string; message: string; generation: number | null } | null;
}

const ROOT = "api/v1";
/** An answer that takes longer is none. */
const TIMEOUT_MS = 8_000;

export function pathOf(gateway: GatewayName): string {
  return `/gateways/${encodeURIComponent(gateway.namespace)}/${encodeURIComponent(gateway.name)}`;
}

/** Of an answer that is no success: its status, and the server's own words where it has some. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** A token would help. */
    readonly wantsToken: boolean,
  ) {
    super(message);
  }
}

export async function ask<T>(path: string, method = "GET", body?: unknown): Promise<T> {
  const headers: Record<string, string> = method === "GET" ? {} : { "content-type": "application/json" };
  const token = readToken();
  if (token !== null) headers["authorization"] = `Bearer ${token}`;
  const answer = await fetch(ROOT + path, {
    method,
    headers,
    signal: AbortSignal.timeout(TIMEOUT_MS),
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  const wantsToken = answer.status === 401 && answer.headers.get("www-authenticate") === "Bearer";
  const refused = (words: string) => new Refused(answer.status, words, wantsToken);
  let said: unknown;
  try {
    said = JSON.parse(text);
  } catch {
    throw refused(`${answer.status} ${answer.statusText}`);
  }
  if (!answer.ok) {
    const error = (said as { error?: unknown }).error;
    throw refused(typeof error === "string" ? error : `${answer.status} ${answer.statusText}`);
  }
  return said as T;
}

/** What is wrong, in words. */
export function message(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure);
}

export interface Polled<T> {
  /** The last good answer. */
  value: T | undefined;
  /** When it came. */
  at: number;
  /** What is wrong since then. */
  problem: string | undefined;
  /** What is wrong is that nobody is known to look. */
  wantsToken: boolean;
  /** Asks now. */
  again: () => void;
}

/** Asks every `everyMs`, one question at a time, and not while nobody looks. */
export function usePolled<T>(path: string | null, everyMs: number): Polled<T> {
  const [state, set] = useState<{ path: string | null; value?: T; at: number; problem?: string; wantsToken?: boolean }>({ path, at: Date.now() });
  const [turn, setTurn] = useState(0);
  const latest = useRef(path);
  latest.current = path;
  useEffect(() => {
    if (path === null) return undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let gone = false;
    const look = async () => {
      if (!document.hidden) {
        try {
          const value = await ask<T>(path);
          if (!gone) set({ path, value, at: Date.now() });
        } catch (failure) {
          const wrong = { problem: message(failure), wantsToken: failure instanceof Refused && failure.wantsToken };
          if (!gone) set((before) => (before.path === path ? { ...before, ...wrong } : { path, at: Date.now(), ...wrong }));
        }
      }
      if (!gone) timer = setTimeout(look, everyMs);
    };
    const seen = () => {
      if (document.hidden) return;
      clearTimeout(timer);
      void look();
    };
    document.addEventListener("visibilitychange", seen);
    void look();
    return () => {
      gone = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [path, everyMs, turn]);
  const isOf = state.path === path;
  return {
    value: isOf ? state.value : undefined,
    at: state.at,
    problem: isOf ? state.problem : undefined,
    wantsToken: isOf && state.wantsToken === true,
    again: () => setTurn((turn) => turn + 1),
  };
}
