// What may be edited of an object: fields of its spec, and what becomes of them. Whether a value is a good one, the API server says.

export interface Field {
  label: string;
  /** Where it is in the spec. */
  path: string[];
  kind: "number" | "text" | "choice";
  choices?: string[];
  /** What an empty one means; without it there must be a value. */
  empty?: string;
  /** What goes with it when it is empty: the rest of that would be worth nothing. */
  within?: string[];
}

const REQUESTS = "requests per minute";

export const GATEWAY: Field[] = [
  { label: `Limit, ${REQUESTS}`, path: ["ingest", "throttle", "requestsPerMinute"], kind: "number", empty: "no limit" },
  { label: "Requests stay for", path: ["ingest", "retention", "time"], kind: "text", empty: "24h" },
  { label: "Size of all requests, bytes", path: ["ingest", "retention", "bytes"], kind: "number", empty: "10 GiB" },
  { label: "Attempts", path: ["ingest", "delivery", "attempts"], kind: "number", empty: "10" },
  { label: "Time after the first failure", path: ["ingest", "delivery", "backoff", "initial"], kind: "text", empty: "1s" },
  { label: "Longest time between attempts", path: ["ingest", "delivery", "backoff", "max"], kind: "text", empty: "1m" },
  { label: "An attempt may take", path: ["ingest", "delivery", "timeout"], kind: "text", empty: "30s" },
];

export const APPLICATION: Field[] = [
  { label: `Limit, ${REQUESTS}`, path: ["throttle", "requestsPerMinute"], kind: "number", empty: "no limit of its own" },
  { label: "Weight", path: ["throttle", "weight"], kind: "number", empty: "1" },
  { label: "Processing", path: ["processing"], kind: "choice", choices: ["Active", "Paused"] },
  { label: "Requests stay for", path: ["retention", "time"], kind: "text", empty: "as the gateway", within: ["retention"] },
  { label: "Attempts", path: ["delivery", "attempts"], kind: "number", empty: "as the gateway" },
  { label: "Time after the first failure", path: ["delivery", "backoff", "initial"], kind: "text", empty: "as the gateway" },
  { label: "Longest time between attempts", path: ["delivery", "backoff", "max"], kind: "text", empty: "as the gateway" },
  { label: "An attempt may take", path: ["delivery", "timeout"], kind: "text", empty: "as the gateway" },
];

type Tree = { [name: string]: unknown };

function isTree(value: unknown): value is Tree {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What is in a field, as text. */
export function read(spec: unknown, path: string[]): string {
  const found = path.reduce<unknown>((value, name) => (isTree(value) ? value[name] : undefined), spec);
  return found === undefined || found === null ? "" : String(found);
}

function put(tree: Tree, path: string[], value: unknown) {
  const [name, ...rest] = path;
  if (name === undefined) return;
  if (rest.length === 0) {
    tree[name] = value;
    return;
  }
  const below = tree[name];
  const next: Tree = isTree(below) ? below : {};
  tree[name] = next;
  put(next, rest, value);
}

/** The fields that have another text than the spec has, as a merge patch. */
export function patch(spec: unknown, fields: Field[], texts: Record<string, string>): Tree {
  const changed: Tree = {};
  for (const field of fields) {
    const before = read(spec, field.path);
    const text = (texts[field.path.join(".")] ?? before).trim();
    if (text === before) continue;
    if (text === "") put(changed, field.within ?? field.path, null);
    // What is no number goes as it is, and is refused with the rule's own words.
    else put(changed, field.path, field.kind === "number" && /^-?\d+$/.test(text) ? Number(text) : text);
  }
  return changed;
}

function leaves(value: unknown, path: string, found: Map<string, string>) {
  if (isTree(value)) for (const [name, below] of Object.entries(value)) leaves(below, `${path}.${name}`, found);
  else found.set(path, JSON.stringify(value));
}

export interface Line {
  path: string;
  before: string | undefined;
  after: string | undefined;
}

/** Where two specs differ. */
export function difference(before: unknown, after: unknown): Line[] {
  const [was, is] = [new Map<string, string>(), new Map<string, string>()];
  leaves(before, "spec", was);
  leaves(after, "spec", is);
  const paths = [...new Set([...was.keys(), ...is.keys()])].sort();
  return paths.map((path) => ({ path, before: was.get(path), after: is.get(path) })).filter((line) => line.before !== line.after);
}
