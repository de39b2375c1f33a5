import { useState } from "preact/hooks";

import { Problem } from "../parts";
import { keepToken } from "../token";

/** Asks who looks. */
export function Login(props: { problem: string | undefined; known: () => void }) {
  const [token, setToken] = useState("");
  return (
    <form
      class="login"
      onSubmit={(event) => {
        event.preventDefault();
        keepToken(token.trim());
        props.known();
      }}
    >
      <p>Who looks is known by a token of the cluster, such as that of an account that may get Gateways:</p>
      <pre tabIndex={0}>kubectl create token ACCOUNT</pre>
      <label>
        Token <input type="password" autocomplete="off" required value={token} onInput={(event) => setToken(event.currentTarget.value)} />
      </label>{" "}
      <button type="submit">Look</button>
      <Problem text={props.problem} />
    </form>
  );
}
