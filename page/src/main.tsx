// The page: one gateway at a time, a view of it, and whether what is shown is true.

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";

import { type GatewayName, pathOf, type Rights, type Root, type Snapshot, usePolled } from "./api";
import { Problem, Stale } from "./parts";
import "./style.css";
import { forgetToken, readToken } from "./token";
import { Applications } from "./views/applications";
import { Login } from "./views/login";
import { Overview } from "./views/overview";
import { Pods } from "./views/pods";
import { Requests } from "./views/requests";
import { Settings } from "./views/settings";
import { Throttle } from "./views/throttle";
import { Upstreams } from "./views/upstreams";

const VIEWS = ["Overview", "Throttle", "Pods", "Applications", "Upstreams", "Requests", "Settings"] as const;
type View = (typeof VIEWS)[number];

/** Before it is known. */
const NOTHING: Rights = { requests: false, replay: false, edit: false };

/** `#/<namespace>/<name>/<view>`. */
interface Place {
  gateway: GatewayName | undefined;
  view: View;
}

function read(): Place {
  const [, namespace, name, view] = location.hash.split("/").map(decodeURIComponent);
  return {
    gateway: namespace !== undefined && name !== undefined ? { namespace, name } : undefined,
    view: VIEWS.find((one) => one.toLowerCase() === view) ?? "Overview",
  };
}

function href(gateway: GatewayName, view: View): string {
  return `#/${encodeURIComponent(gateway.namespace)}/${encodeURIComponent(gateway.name)}/${view.toLowerCase()}`;
}

function Page() {
  const [place, setPlace] = useState(read);
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const moved = () => setPlace(read());
    addEventListener("hashchange", moved);
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => {
      removeEventListener("hashchange", moved);
      clearInterval(timer);
    };
  }, []);
  const root = usePolled<Root>("", 10_000);
  const gateway = place.gateway ?? root.value?.gateways[0];
  const polled = usePolled<Snapshot>(gateway === undefined ? null : pathOf(gateway), 1_000);
  const rights = usePolled<Rights>(gateway === undefined ? null : `${pathOf(gateway)}/rights`, 10_000).value ?? NOTHING;
  useEffect(() => {
    document.title = gateway === undefined ? "Sluice" : `${gateway.name} · ${place.view} · Sluice`;
  }, [gateway?.name, place.view]);
  const leave = () => {
    forgetToken();
    location.reload();
  };
  const exit = readToken() !== null && (
    <button type="button" onClick={leave}>
      Forget the token
    </button>
  );
  if (root.value === undefined || root.wantsToken || gateway === undefined) {
    return (
      <main>
        <h1>Sluice</h1>
        {root.wantsToken ? (
          <Login problem={readToken() === null ? undefined : root.problem} known={root.again} />
        ) : root.value === undefined ? (
          <Problem text={root.problem} />
        ) : (
          <p>There is no gateway that you may see. {exit}</p>
        )}
      </main>
    );
  }
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        To the figures
      </a>
      <header>
        <h1>
          Sluice <small>{root.value.release}</small>
        </h1>
        <span>
          <label for="gateway">Gateway</label>{" "}
          <select id="gateway" value={href(gateway, "Overview")} onChange={(event) => (location.hash = event.currentTarget.value)}>
            {root.value.gateways.map((one) => (
              <option key={href(one, "Overview")} value={href(one, "Overview")}>
                {one.namespace}/{one.name}
              </option>
            ))}
          </select>
        </span>
        <nav aria-label="Views">
          <ul>
            {VIEWS.map((view) => (
              <li key={view}>
                <a href={href(gateway, view)} aria-current={view === place.view ? "page" : undefined}>
                  {view}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        {exit}
      </header>
      <main id="main" tabIndex={-1}>
        <Stale polled={polled} now={now} />
        {polled.value === undefined ? <p>…</p> : <Shown view={place.view} gateway={gateway} now={polled.value} rights={rights} />}
      </main>
    </>
  );
}

function skip(event: Event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Shown(props: { view: View; gateway: GatewayName; now: Snapshot; rights: Rights }) {
  const { view, gateway, now, rights } = props;
  // Another gateway has other charts, and nothing of this one's searches.
  const key = pathOf(gateway);
  switch (view) {
    case "Overview":
      return <Overview key={key} gateway={gateway} now={now} />;
    case "Throttle":
      return <Throttle key={key} gateway={gateway} now={now} />;
    case "Pods":
      return <Pods now={now} />;
    case "Applications":
      return <Applications key={key} gateway={gateway} now={now} />;
    case "Upstreams":
      return <Upstreams now={now} />;
    case "Requests":
      return <Requests key={key} gateway={gateway} rights={rights} />;
    case "Settings":
      return <Settings key={key} gateway={gateway} rights={rights} />;
  }
}

const place = document.getElementById("page");
if (place !== null) render(<Page />, place);
