import { useEffect, useRef, useState } from "preact/hooks";

import { ask, message, type Found, type FoundPage, type GatewayName, pathOf, type Rights, type Shown } from "../api";
import { bytes } from "../format";
import { Problem, Table } from "../parts";

const STATES = ["", "waiting", "parked", "delivered", "replayed", "discarded"];
const PAGE = 50;

interface Wanted {
  application: string;
  key: string;
  state: string;
}

export function Requests(props: { gateway: GatewayName; rights: Rights }) {
  const { gateway, rights } = props;
  const [wanted, setWanted] = useState<Wanted>({ application: "", key: "", state: "" });
  const [found, setFound] = useState<FoundPage>();
  const [chosen, setChosen] = useState<string>();
  const [problem, setProblem] = useState<string>();
  const base = `${pathOf(gateway)}/requests`;

  const search = async (after?: string) => {
    const query = new URLSearchParams({ limit: String(PAGE) });
    for (const [name, value] of Object.entries(wanted)) if (value !== "") query.set(name, value);
    if (after !== undefined) query.set("after", after);
    try {
      const page = await ask<FoundPage>(`${base}?${query}`);
      setFound((before) => (after === undefined ? page : { ...page, requests: [...(before?.requests ?? []), ...page.requests] }));
      setProblem(undefined);
    } catch (failure) {
      setProblem(message(failure));
    }
  };
  useEffect(() => {
    if (rights.requests) void search();
  }, [base, rights.requests]);

  if (!rights.requests) return <p class="note">You may not look at requests.</p>;
  const set = (name: keyof Wanted) => (event: { currentTarget: HTMLInputElement | HTMLSelectElement }) =>
    setWanted({ ...wanted, [name]: event.currentTarget.value });
  return (
    <>
      <h2>Requests</h2>
      <form
        class="search"
        onSubmit={(event) => {
          event.preventDefault();
          void search();
        }}
      >
        <label>
          Application <input value={wanted.application} onInput={set("application")} />
        </label>
        <label>
          Key <input value={wanted.key} onInput={set("key")} />
        </label>
        <span>
          <label for="state">State</label>{" "}
          <select id="state" value={wanted.state} onChange={set("state")}>
            {STATES.map((state) => (
              <option key={state} value={state}>
                {state === "" ? "any" : state}
              </option>
            ))}
          </select>
        </span>
        <button type="submit">Find</button>
      </form>
      <Problem text={problem} />
      <Table
        caption="Found requests, the oldest first"
        head={["Accepted", "Application", "Key", "State", "Why", "Attempts", "Size", ""]}
        rows={found?.requests.length ?? 0}
        empty={found === undefined ? "…" : "None is found."}
      >
        {found?.requests.map((one) => (
          <Row key={one.id} one={one} look={() => setChosen(one.id)} />
        ))}
      </Table>
      {found?.next != null && (
        <button type="button" onClick={() => void search(found.next ?? undefined)}>
          More
        </button>
      )}
      {chosen !== undefined && (
        <Look
          path={`${base}/${encodeURIComponent(chosen)}`}
          mayAct={rights.replay}
          close={(hasActed) => {
            setChosen(undefined);
            if (hasActed) void search();
          }}
        />
      )}
    </>
  );
}

function Row(props: { one: Found; look: () => void }) {
  const { one } = props;
  return (
    <tr>
      <td>{one.acceptedAt}</td>
      <td>{one.application}</td>
      <td>{one.key ?? one.keyBase64 ?? ""}</td>
      <td>
        <span class={`state ${one.state}`}>{one.state}</span>
      </td>
      <td>{one.verdict?.reason ?? ""}</td>
      <td>{one.verdict?.attempts ?? ""}</td>
      <td>{bytes(one.bytes)}</td>
      <td>
        <button type="button" onClick={props.look} aria-label={`Look at the request of ${one.acceptedAt}`}>
          Look
        </button>
      </td>
    </tr>
  );
}

function Look(props: { path: string; mayAct: boolean; close: (hasActed: boolean) => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [shown, setShown] = useState<Shown>();
  const [done, setDone] = useState<string>();
  const [problem, setProblem] = useState<string>();
  useEffect(() => {
    dialog.current?.showModal();
    ask<Shown>(props.path).then(setShown, (failure: unknown) => setProblem(message(failure)));
  }, [props.path]);
  const act = async (what: "replay" | "discard") => {
    try {
      const answer = await ask<{ replayedAs?: string }>(`${props.path}/${what}`, "POST");
      setDone(answer.replayedAs === undefined ? "Discarded." : `Replayed as ${answer.replayedAs}.`);
      setProblem(undefined);
    } catch (failure) {
      setProblem(message(failure));
    }
  };
  const request = shown?.request;
  return (
    <dialog ref={dialog} onClose={() => props.close(done !== undefined)} aria-labelledby="look-title">
      <h3 id="look-title">{shown === undefined ? "Request" : `${request?.method ?? ""} ${request?.target ?? request?.targetBase64 ?? ""}`}</h3>
      {shown !== undefined && (
        <>
          <p>
            {shown.id}, {shown.application}, {shown.state}
            {shown.verdict !== undefined && `: ${shown.verdict.reason} (${shown.verdict.httpStatus ?? "no status"}) after ${shown.verdict.attempts} attempts at ${shown.verdict.upstream}`}
          </p>
          <h4>Headers</h4>
          <pre tabIndex={0}>{request?.headers?.map(([name, value]) => `${name}: ${value}`).join("\n") ?? request?.error}</pre>
          <h4>
            Body, {bytes(request?.bodyBytes ?? 0)}
            {request?.bodyTruncated === true && ", its beginning"}
          </h4>
          <pre tabIndex={0} id="body">
            {request?.body ?? request?.bodyBase64 ?? ""}
          </pre>
        </>
      )}
      <Problem text={problem} />
      {done !== undefined && <p role="status">{done}</p>}
      <p class="actions">
        {props.mayAct && (
          <>
            <button type="button" disabled={done !== undefined} onClick={() => void act("replay")}>
              Replay
            </button>
            <button type="button" disabled={done !== undefined || shown?.state === "delivered"} onClick={() => void act("discard")}>
              Discard
            </button>
          </>
        )}
        <button type="button" onClick={() => dialog.current?.close()}>
          Close
        </button>
      </p>
    </dialog>
  );
}
