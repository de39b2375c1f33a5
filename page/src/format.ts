// Numbers and times for people.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** Small ones with a digit after the point. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return Math.abs(value) < 10 && !Number.isInteger(value) ? one.format(value) : whole.format(value);
}

export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value < 0.0005) return "0 s";
  if (value < 1) return `${whole.format(value * 1000)} ms`;
  if (value < 120) return `${one.format(value)} s`;
  if (value < 7_200) return `${one.format(value / 60)} min`;
  if (value < 172_800) return `${one.format(value / 3_600)} h`;
  return `${one.format(value / 86_400)} d`;
}

const units = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(value: number): string {
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${one.format(value)} ${units[unit] ?? ""}`;
}

const reasons: Record<string, string> = {
  Cap: "the application's cap",
  GlobalCap: "the gateway's cap",
  Rate: "the upstream is slow",
  InFlight: "the upstream is busy",
  Breaker: "the breaker is open: the upstream failed",
  RetryAfter: "the upstream asked for a pause (Retry-After)",
  Paused: "the application is paused",
  UpstreamPaused: "the upstream refuses the application",
  OrderBlocked: "an earlier request of the same key",
  Backoff: "failed, and waits to be tried again",
  UnhealthyUpstream: "no upstream passes its health checks",
  Store: "what was delivered cannot be recorded",
  Draining: "the data plane is about to end",
};

/** Why something waits, in words. */
export function held(reason: string, waiting: number): string {
  if (reason !== "") return reasons[reason] ?? reason;
  return waiting > 0 ? "being sent" : "nothing waits";
}

export function clock(ms: number): string {
  return new Date(ms).toLocaleTimeString("en-GB");
}
