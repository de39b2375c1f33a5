// What several views are made of.

import type { ComponentChildren } from "preact";

import type { Polled } from "./api";
import { clock } from "./format";

/** Figures older than this are said to be. */
const STALE_MS = 4_000;

export function Tile(props: { name: string; value: string; of?: string; id?: string }) {
  return (
    <div class="tile">
      <dt>{props.name}</dt>
      <dd id={props.id}>
        {props.value}
        {props.of !== undefined && <small> {props.of}</small>}
      </dd>
    </div>
  );
}

/** Says plainly when what is shown is old. */
export function Stale(props: { polled: Polled<unknown>; now: number }) {
  const { polled, now } = props;
  const age = now - polled.at;
  const isStale = polled.problem !== undefined || age > STALE_MS;
  return (
    <p class="stale" role="status" hidden={!isStale}>
      {isStale &&
        (polled.value === undefined
          ? `No answer yet: ${polled.problem ?? "waiting"}`
          : `No answer for ${Math.round(age / 1000)} s${polled.problem === undefined ? "" : ` (${polled.problem})`}: what is shown is of ${clock(polled.at)}.`)}
    </p>
  );
}

export function Table(props: { caption: string; head: string[]; children: ComponentChildren; empty: string; rows: number }) {
  return (
    <div class="scrolled" role="region" aria-label={props.caption} tabIndex={0}>
      <table>
        <caption>{props.caption}</caption>
        <thead>
          <tr>
            {props.head.map((name) => (
              <th scope="col" key={name}>
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows === 0 ? (
            <tr>
              <td colSpan={props.head.length} class="empty">
                {props.empty}
              </td>
            </tr>
          ) : (
            props.children
          )}
        </tbody>
      </table>
    </div>
  );
}

/** What a limit leaves. */
export function Meter(props: { value: number; of: number; label: string }) {
  const part = props.of > 0 ? Math.min(1, props.value / props.of) : 0;
  return <meter min={0} max={1} value={part} aria-label={`${props.label}: ${Math.round(part * 100)} %`} />;
}

export function Problem(props: { text: string | undefined }) {
  return props.text === undefined ? null : (
    <p class="problem" role="alert">
      {props.text}
    </p>
  );
}
