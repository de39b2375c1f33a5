import { useState } from "preact/hooks";

import { type GatewayName, pathOf, type Series, type Snapshot, usePolled } from "../api";
import { Chart } from "../chart";
import { bytes, held, number, seconds } from "../format";
import { Tile } from "../parts";

const SPANS: [string, number][] = [
  ["2 min", 120],
  ["10 min", 600],
  ["2 h", 7_200],
  ["24 h", 86_400],
];

const FLOW = [
  { field: "arrivedPerMinute", label: "incoming", color: "--incoming" },
  { field: "deliveredPerMinute", label: "processed", color: "--processed" },
  { field: "failedPerMinute", label: "failed", color: "--failed" },
];
const WAITING = [{ field: "waiting", label: "waiting", color: "--incoming" }];
const DELAY = [{ field: "oldestSeconds", label: "delay in seconds", color: "--incoming" }];
const RELAY = [
  { field: "messagesInPerSecond", label: "messages in per second", color: "--incoming" },
  { field: "messagesOutPerSecond", label: "messages out per second", color: "--processed" },
];
const CONNECTIONS = [{ field: "connections", label: "connections", color: "--incoming" }];

export function Overview(props: { gateway: GatewayName; now: Snapshot }) {
  const { gateway, now } = props;
  const [span, setSpan] = useState(600);
  // A day is of points of a minute; there is no hurry.
  const everyMs = span > 600 ? 5_000 : 1_000;
  const series = usePolled<Series>(`${pathOf(gateway)}/series?seconds=${span}`, everyMs).value;
  const { flow } = now;
  return (
    <>
      <h2>Overview</h2>
      {now.learning && <p class="note">This manager is new, and learns what the fleet holds.</p>}
      {now.activity !== null && <p class="note">{now.activity}</p>}
      <dl class="tiles">
        <Tile name="Incoming" value={number(flow.arrivedPerMinute)} of="per minute" id="incoming" />
        <Tile name="Processed" value={number(flow.deliveredPerMinute)} of="per minute" id="processed" />
        <Tile name="Failed" value={number(flow.failedPerMinute)} of="per minute" id="failed" />
        <Tile name="Delay" value={seconds(flow.oldestSeconds)} of={held(flow.held, flow.waiting)} id="delay" />
        <Tile name="Waiting" value={number(flow.waiting)} of={bytes(now.queueBytes)} id="waiting" />
        <Tile name="Connections" value={number(now.connections)} id="connections" />
        <Tile name="Messages in" value={number(now.messagesInPerSecond)} of="per second" />
        <Tile name="Messages out" value={number(now.messagesOutPerSecond)} of="per second" />
      </dl>
      <p class="counts">
        Counted: <b id="arrived-total">{number(flow.arrived)}</b> taken in, <b id="delivered-total">{number(flow.delivered)}</b> processed,{" "}
        <b id="failed-total">{number(flow.failed)}</b> failed, <b id="parked-total">{number(flow.parked)}</b> kept to be looked at.
      </p>
      <fieldset class="spans">
        <legend>Shown</legend>
        {SPANS.map(([name, value]) => (
          <label key={name}>
            <input type="radio" name="span" checked={span === value} onChange={() => setSpan(value)} /> {name}
          </label>
        ))}
      </fieldset>
      <div class="charts">
        <Chart title="Requests per minute" series={series} lines={FLOW} />
        <Chart title="Waiting requests" series={series} lines={WAITING} />
        <Chart title="Delay of the oldest request" series={series} lines={DELAY} />
        <Chart title="Connections" series={series} lines={CONNECTIONS} />
        <Chart title="Messages" series={series} lines={RELAY} />
      </div>
    </>
  );
}
