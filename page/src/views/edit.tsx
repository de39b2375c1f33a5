import { useEffect, useRef, useState } from "preact/hooks";

import { ask, message, type Written } from "../api";
import { Problem } from "../parts";
import { difference, type Field, type Line, patch, read } from "./fields";

/** Changes the object in which settings are written: first as a trial, whose differences are shown, then for good. */
export function Edit(props: { path: string; fields: Field[]; close: () => void }) {
  const { path, fields } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const [seen, setSeen] = useState<Written>();
  const [texts, setTexts] = useState<Record<string, string>>({});
  const [lines, setLines] = useState<Line[]>();
  const [problem, setProblem] = useState<string>();
  const [saved, setSaved] = useState(false);

  const tried = async (what: () => Promise<void>) => {
    try {
      await what();
      setProblem(undefined);
    } catch (failure) {
      setProblem(message(failure));
    }
  };
  const look = () =>
    tried(async () => {
      setSeen(await ask<Written>(path));
      setLines(undefined);
    });
  useEffect(() => {
    dialog.current?.showModal();
    void look();
  }, [path]);
  const change = (dry: boolean) =>
    tried(async () => {
      if (seen === undefined) return;
      const wanted = { generation: seen.generation, spec: patch(seen.spec, fields, texts) };
      const after = await ask<Written>(`${path}?dryRun=${dry}`, "PATCH", wanted);
      if (dry) setLines(difference(seen.spec, after.spec));
      else setSaved(true);
    });

  return (
    <dialog ref={dialog} onClose={props.close} aria-labelledby="edit-title">
      <h3 id="edit-title">{seen === undefined ? "Settings" : `${seen.kind} ${seen.namespace}/${seen.name}`}</h3>
      {seen?.ready?.status === "False" && (
        <p class="note">
          It is not in force as it is written: {seen.ready.reason}, {seen.ready.message}
        </p>
      )}
      {seen !== undefined && lines === undefined && (
        <form
          id="edit"
          class="fields"
          onSubmit={(event) => {
            event.preventDefault();
            void change(true);
          }}
        >
          {fields.map((field) => {
            const name = field.path.join(".");
            const value = texts[name] ?? read(seen.spec, field.path);
            return <Input key={name} field={field} value={value} set={(text) => setTexts({ ...texts, [name]: text })} />;
          })}
        </form>
      )}
      {lines !== undefined && <Difference lines={lines} />}
      <Problem text={problem} />
      {saved && <p role="status">Saved.</p>}
      <p class="actions">
        {lines === undefined ? (
          <button type="submit" form="edit" disabled={seen === undefined}>
            Review
          </button>
        ) : (
          !saved && (
            <>
              <button type="button" disabled={lines.length === 0} onClick={() => void change(false)}>
                Save
              </button>
              <button type="button" onClick={() => setLines(undefined)}>
                Back
              </button>
            </>
          )
        )}
        {problem !== undefined && !saved && (
          <button type="button" onClick={() => void look()}>
            Look at it again
          </button>
        )}
        <button type="button" onClick={() => dialog.current?.close()}>
          Close
        </button>
      </p>
    </dialog>
  );
}

function Input(props: { field: Field; value: string; set: (text: string) => void }) {
  const { field, value } = props;
  if (field.kind === "choice") {
    return (
      <label>
        <span>{field.label}</span>
        <select value={value} onChange={(event) => props.set(event.currentTarget.value)}>
          {field.choices?.map((choice) => (
            <option key={choice} value={choice}>
              {choice}
            </option>
          ))}
        </select>
      </label>
    );
  }
  return (
    <label>
      <span>{field.label}</span>
      <input
        value={value}
        inputMode={field.kind === "number" ? "numeric" : "text"}
        placeholder={field.empty}
        required={field.empty === undefined}
        onInput={(event) => props.set(event.currentTarget.value)}
      />
    </label>
  );
}

function Difference(props: { lines: Line[] }) {
  if (props.lines.length === 0) return <p>Nothing is changed.</p>;
  return (
    <dl class="difference">
      {props.lines.map((line) => (
        <div key={line.path}>
          <dt>{line.path}</dt>
          <dd>
            <del>{line.before ?? "unset"}</del> → <ins>{line.after ?? "unset"}</ins>
          </dd>
        </div>
      ))}
    </dl>
  );
}
