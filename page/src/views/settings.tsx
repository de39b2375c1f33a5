import { type Delivery, type GatewayName, pathOf, type Settings as All, usePolled } from "../api";
import { bytes, number, seconds } from "../format";
import { Table, Tile } from "../parts";

function limit(value: number | null): string {
  return value === null ? "none" : `${number(value)} per minute`;
}

function attempts(delivery: Delivery): string {
  return `${delivery.attempts}, ${seconds(delivery.backoffInitialSeconds)} to ${seconds(delivery.backoffMaxSeconds)} apart`;
}

export function Settings(props: { gateway: GatewayName }) {
  const all = usePolled<All>(`${pathOf(props.gateway)}/settings`, 2_000).value;
  if (all === undefined) return <p>…</p>;
  const { gateway } = all;
  return (
    <>
      <h2>Settings</h2>
      <p class="note">
        {all.source === "Manifests"
          ? "These are in the manifests that the process was started with: edit the files, and they are in force a second later."
          : "These are in the objects of Kubernetes: change them with kubectl."}
      </p>
      {gateway !== null && (
        <dl class="tiles">
          <Tile name="Limit of the gateway" value={limit(gateway.requestsPerMinute)} id="gateway-limit" />
          <Tile name="An answered request survives" value={gateway.durability} />
          <Tile name="Requests stay for" value={seconds(gateway.retentionSeconds)} of={`up to ${bytes(gateway.retentionBytes)}`} />
          <Tile name="Attempts" value={attempts(gateway.delivery)} />
          <Tile name="An attempt may take" value={seconds(gateway.delivery.timeoutSeconds)} />
        </dl>
      )}
      <Table
        caption="Applications"
        head={["Application", "Limit", "Weight", "Paused", "Stay for", "Attempts"]}
        rows={all.applications.length}
        empty="There is none."
      >
        {all.applications.map((one) => (
          <tr key={one.name}>
            <th scope="row">{one.name}</th>
            <td>{limit(one.requestsPerMinute)}</td>
            <td>{number(one.weight)}</td>
            <td>{one.paused ? "yes" : "no"}</td>
            <td>{one.retentionSeconds === null ? "as the gateway" : seconds(one.retentionSeconds)}</td>
            <td>{one.delivery === null ? "as the gateway" : attempts(one.delivery)}</td>
          </tr>
        ))}
      </Table>
    </>
  );
}
