import { type Applications, type Flow, type GatewayName, pathOf, type Series, type Snapshot, usePolled } from "../api";
import { held, number, seconds } from "../format";
import { Meter, Table } from "../parts";

const AVERAGE_S = 600;

function average(series: Series | undefined): number | undefined {
  const known = series?.columns["deliveredPerMinute"]?.filter((value) => value !== null) ?? [];
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0) / known.length;
}

function Row(props: { name: string; flow: Flow; flowing: number | undefined }) {
  const { name, flow } = props;
  const now = flow.sentPerMinute ?? flow.deliveredPerMinute;
  return (
    <tr>
      <th scope="row">{name}</th>
      <td>{flow.limitPerMinute === null ? "none" : number(flow.limitPerMinute)}</td>
      <td>
        {number(now)} {flow.limitPerMinute !== null && <Meter value={now} of={flow.limitPerMinute} label={`${name}, part of the limit in use`} />}
      </td>
      <td>{number(props.flowing)}</td>
      <td>{number(flow.waiting)}</td>
      <td>{seconds(flow.oldestSeconds)}</td>
      <td>{held(flow.held, flow.waiting)}</td>
    </tr>
  );
}

function OfApplication(props: { gateway: GatewayName; name: string; flow: Flow }) {
  const { gateway, name, flow } = props;
  const path = `${pathOf(gateway)}/series?seconds=${AVERAGE_S}&application=${encodeURIComponent(name)}`;
  return <Row name={name} flow={flow} flowing={average(usePolled<Series>(path, 10_000).value)} />;
}

/** Of how many applications the average is asked for. */
const SHOWN = 20;

export function Throttle(props: { gateway: GatewayName; now: Snapshot }) {
  const { gateway, now } = props;
  const all = usePolled<Applications>(`${pathOf(gateway)}/applications?limit=${SHOWN}`, 1_000).value;
  const series = usePolled<Series>(`${pathOf(gateway)}/series?seconds=${AVERAGE_S}`, 5_000).value;
  const applications = all?.applications ?? [];
  return (
    <>
      <h2>Throttle activity</h2>
      <Table
        caption="Limits, and why rates are what they are; requests per minute"
        head={["", "Limit", "Now", "Average of 10 min", "Waiting", "Delay", "Why"]}
        rows={1}
        empty=""
      >
        <Row name="Gateway" flow={now.flow} flowing={average(series)} />
        {applications.map((one) => (
          <OfApplication key={one.name} gateway={gateway} name={one.name} flow={one} />
        ))}
      </Table>
      {all !== undefined && all.total > SHOWN && <p class="note">The busiest {SHOWN} of {number(all.total)} applications.</p>}
    </>
  );
}
