import type { Snapshot } from "../api";
import { number } from "../format";
import { Meter, Table } from "../parts";

export function Upstreams(props: { now: Snapshot }) {
  const { upstreams } = props.now;
  return (
    <>
      <h2>Upstreams</h2>
      <Table
        caption="What the servers take, over all pods"
        head={["Upstream", "Taken / min", "Taken", "Failed", "In flight", "Pace / min", "State"]}
        rows={upstreams.length}
        empty="There is none."
      >
        {upstreams.map((one) => (
          <tr key={one.name}>
            <th scope="row">{one.name}</th>
            <td>{number(one.succeededPerMinute)}</td>
            <td>{number(one.succeeded)}</td>
            <td>{number(one.failed)}</td>
            <td>
              {number(one.inFlight)} of {number(one.inFlightLimit)} <Meter value={one.inFlight} of={one.inFlightLimit} label={`In flight to ${one.name}`} />
            </td>
            <td>{one.pacePerMinute === null ? "not paced" : number(one.pacePerMinute)}</td>
            <td>
              {one.closed > 0 ? (
                <span class="state Silent">closed to {one.closed === one.pods ? "all pods" : `${one.closed} of ${one.pods} pods`}</span>
              ) : one.wanted ? (
                "more waits than it takes"
              ) : (
                "open"
              )}
            </td>
          </tr>
        ))}
      </Table>
    </>
  );
}
