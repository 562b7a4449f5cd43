/** Fields of forms, each with its name, what it is for, and what is wrong with it. */
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

export interface Wrong {
  field: string;
  message: string;
  fix: string;
}

interface FieldProps {
  /** As the API calls it. */
  name: string;
  label: string;
  help?: ComponentChildren;
  wrong?: Wrong | null;
}

interface Described {
  id: string;
  name: string;
  "aria-invalid": "true" | undefined;
  "aria-describedby": string;
}

function Field({ name, label, help, wrong, children }: FieldProps & { children(field: Described): ComponentChildren }) {
  const id = useId();
  const mine = wrong?.field === name ? wrong : null;
  return (
    <div class={mine ? "field wrong" : "field"}>
      <label for={id}>{label}</label>
      {children({ id, name, "aria-invalid": mine ? "true" : undefined, "aria-describedby": `${id}-help` })}
      <div id={`${id}-help`} class="help">
        {mine && (
          <p class="wrong-text" role="alert">
            <bdi>{mine.message}</bdi>
            <span>{mine.fix}</span>
          </p>
        )}
        {help && <p>{help}</p>}
      </div>
    </div>
  );
}

interface TextProps extends FieldProps {
  value: string;
  onValue(value: string): void;
  placeholder?: string;
  type?: "text" | "number" | "password";
  rows?: number;
  min?: number;
  max?: number;
  step?: number | "any";
}

export function TextField({ value, onValue, placeholder = "", type = "text", rows = 0, ...rest }: TextProps) {
  const { min, max, step, ...field } = rest;
  const given = { value, placeholder, spellcheck: false, autocomplete: "off" };
  return (
    <Field {...field}>
      {(described) =>
        rows > 0 ? (
          <textarea {...described} {...given} rows={rows} onInput={(event) => onValue(event.currentTarget.value)} />
        ) : (
          <input
            {...described}
            {...given}
            type={type as "number"}
            min={min}
            max={max}
            step={step}
            inputMode={type === "number" ? "decimal" : undefined}
            onInput={(event) => onValue(event.currentTarget.value)}
          />
        )
      }
    </Field>
  );
}

interface SelectProps extends FieldProps {
  value: string;
  onValue(value: string): void;
  options: readonly { value: string; label: string }[];
}

export const SelectField = ({ value, onValue, options, ...field }: SelectProps) => (
  <Field {...field}>
    {(described) => (
      <select {...described} value={value} onChange={(event) => onValue(event.currentTarget.value)}>
        {options.map((option) => (
          <option key={option.value} value={option.value}>
            {option.label}
          </option>
        ))}
      </select>
    )}
  </Field>
);

interface ChoiceProps {
  legend: string;
  name: string;
  value: string;
  onValue(value: string): void;
  options: readonly { value: string; label: string; note?: string }[];
}

/** One of a few, all of them seen. */
export const Choice = ({ legend, name, value, onValue, options }: ChoiceProps) => (
  <fieldset class="choice">
    <legend>{legend}</legend>
    {options.map((option) => (
      <label key={option.value}>
        <input
          type="radio"
          name={name}
          value={option.value}
          checked={option.value === value}
          onChange={() => onValue(option.value)}
        />
        <span>
          {option.label}
          {option.note && <small>{option.note}</small>}
        </span>
      </label>
    ))}
  </fieldset>
);

interface CheckProps {
  name: string;
  label: string;
  help: string;
  checked: boolean;
  onChecked(checked: boolean): void;
}

export const CheckField = ({ name, label, help, checked, onChecked }: CheckProps) => (
  <label class="check">
    <input type="checkbox" name={name} checked={checked} onChange={(event) => onChecked(event.currentTarget.checked)} />
    <span>
      {label}
      <small>{help}</small>
    </span>
  </label>
);
