import type { Snapshot } from "../api";
import { bytes, number, seconds } from "../format";
import { Meter, Table } from "../parts";

export function Pods(props: { now: Snapshot }) {
  const { pods, scale } = props.now;
  return (
    <>
      <h2>Pods</h2>
      {scale !== null && (
        <p class="note">
          {scale.wanted === scale.replicas ? `${scale.replicas} pods` : `${scale.replicas} pods, ${scale.wanted} are wanted`} ({scale.reason}
          {scale.limit !== null && `, limited: ${scale.limit}`}
          {scale.wish !== scale.wanted && `, ${scale.wish} are wished`}
          {scale.victim !== null && `, ${scale.victim} goes next`}
          {scale.waits !== null && `, waits: ${scale.waits}`}).
        </p>
      )}
      <Table
        caption="What pods say, and what the plan wants of them"
        head={["Pod", "State", "Connections", "Its part", "CPU", "Memory", "In / min", "Out / min", "Waiting", "Late by", "Heard"]}
        rows={pods.length}
        empty="No pod reports."
      >
        {pods.map((pod) => (
          <tr key={pod.name}>
            <th scope="row">
              {pod.name}
              <small>{[pod.node, pod.zone, pod.release].filter((text) => text !== null && text !== "").join(" · ")}</small>
            </th>
            <td>
              <span class={`state ${pod.state}`}>{pod.state}</span>
              {pod.reason !== "" && <small>{pod.reason}</small>}
            </td>
            <td>{number(pod.connections)}</td>
            <td>{number(pod.fair)}</td>
            <td>
              {number(pod.cpuCores)}
              {pod.cpuRequestCores !== null && <Meter value={pod.cpuCores} of={pod.cpuRequestCores} label={`CPU of ${pod.name}`} />}
            </td>
            <td>
              {bytes(pod.memoryBytes)}
              {pod.memoryLimitBytes > 0 && <Meter value={pod.memoryBytes} of={pod.memoryLimitBytes} label={`Memory of ${pod.name}`} />}
            </td>
            <td>{number(pod.arrivedPerMinute)}</td>
            <td>{number(pod.deliveredPerMinute)}</td>
            <td>{number(pod.waiting)}</td>
            <td>{seconds(pod.loopDelayMs / 1000)}</td>
            <td>{pod.reportedSecondsAgo === null ? "never" : pod.reporting ? "now" : `${seconds(pod.reportedSecondsAgo)} ago`}</td>
          </tr>
        ))}
      </Table>
    </>
  );
}
