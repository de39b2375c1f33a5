import { useState } from "preact/hooks";

import { type Delivery, type GatewayName, pathOf, type Rights, type Settings as All, usePolled } from "../api";
import { bytes, number, seconds } from "../format";
import { Table, Tile } from "../parts";
import { Edit } from "./edit";
import { APPLICATION, type Field, GATEWAY } from "./fields";

function limit(value: number | null): string {
  return value === null ? "none" : `${number(value)} per minute`;
}

function attempts(delivery: Delivery): string {
  return `${delivery.attempts}, ${seconds(delivery.backoffInitialSeconds)} to ${seconds(delivery.backoffMaxSeconds)} apart`;
}

/** Where the API has the object of an application, whose name has its namespace if that is another one. */
function objectOf(gateway: GatewayName, application: string): string {
  const [namespace, name] = application.includes("/") ? application.split("/") : [gateway.namespace, application];
  return `applications/${encodeURIComponent(namespace ?? "")}/${encodeURIComponent(name ?? "")}`;
}

function note(all: All, rights: Rights): string {
  if (all.source === "Manifests") return "These are in the manifests that the process was started with: edit the files, and they are in force a second later.";
  return rights.edit ? "As they are in force. Each is written in an object of Kubernetes." : "As they are in force. You may not change them.";
}

export function Settings(props: { gateway: GatewayName; rights: Rights }) {
  const base = `${pathOf(props.gateway)}/settings`;
  const polled = usePolled<All>(base, 2_000);
  const [edited, setEdited] = useState<{ object: string; fields: Field[] }>();
  const all = polled.value;
  if (all === undefined) return <p>{polled.problem ?? "…"}</p>;
  const { gateway } = all;
  const mayEdit = all.source === "Kubernetes" && props.rights.edit;
  const head = ["Application", "Limit", "Weight", "Paused", "Stay for", "Attempts"];
  return (
    <>
      <h2>Settings</h2>
      <p class="note">
        {note(all, props.rights)}
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
      {mayEdit && gateway !== null && (
        <p>
          <button type="button" onClick={() => setEdited({ object: "gateway", fields: GATEWAY })}>
            Edit the gateway
          </button>
        </p>
      )}
      <Table
        caption="Applications"
        head={mayEdit ? [...head, ""] : head}
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
            {mayEdit && (
              <td>
                <button
                  type="button"
                  aria-label={`Edit ${one.name}`}
                  onClick={() => setEdited({ object: objectOf(props.gateway, one.name), fields: APPLICATION })}
                >
                  Edit
                </button>
              </td>
            )}
          </tr>
        ))}
      </Table>
      {edited !== undefined && (
        <Edit
          path={`${base}/${edited.object}`}
          fields={edited.fields}
          close={() => {
            setEdited(undefined);
            polled.again();
          }}
        />
      )}
    </>
  );
}
