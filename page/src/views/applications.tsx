import { useState } from "preact/hooks";

import { type Applications as All, type GatewayName, pathOf, type Snapshot, usePolled } from "../api";
import { held, number, seconds } from "../format";
import { Table } from "../parts";

export function Applications(props: { gateway: GatewayName; now: Snapshot }) {
  const [find, setFind] = useState("");
  const query = new URLSearchParams({ limit: "100", ...(find === "" ? {} : { find }) });
  const all = usePolled<All>(`${pathOf(props.gateway)}/applications?${query}`, 1_000).value;
  const processed = props.now.flow.deliveredPerMinute;
  return (
    <>
      <h2>Applications</h2>
      <label class="find">
        Name contains <input type="search" value={find} onInput={(event) => setFind(event.currentTarget.value)} />
      </label>
      {all !== undefined && all.found > all.applications.length && (
        <p class="note">
          The busiest {all.applications.length} of {number(all.found)}.
        </p>
      )}
      <Table
        caption="Requests per minute; the busiest first"
        head={["Application", "In", "Processed", "Failed", "Its part", "Waiting", "Kept", "Delay", "Limit", "Why"]}
        rows={all?.applications.length ?? 0}
        empty={all === undefined ? "…" : "No application has this name."}
      >
        {all?.applications.map((one) => (
          <tr key={one.name}>
            <th scope="row">{one.name}</th>
            <td>{number(one.arrivedPerMinute)}</td>
            <td>{number(one.deliveredPerMinute)}</td>
            <td>{number(one.failedPerMinute)}</td>
            <td>{processed > 0 ? `${number((100 * one.deliveredPerMinute) / processed)} %` : "–"}</td>
            <td>{number(one.waiting)}</td>
            <td>{number(one.parked)}</td>
            <td>{seconds(one.oldestSeconds)}</td>
            <td>{one.limitPerMinute === null ? "none" : number(one.limitPerMinute)}</td>
            <td>{held(one.held, one.waiting)}</td>
          </tr>
        ))}
      </Table>
    </>
  );
}
