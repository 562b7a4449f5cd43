/** A window above the page. The browser keeps the focus in it, and Escape closes it. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon } from "./icons.tsx";

interface DialogProps {
  title: string;
  onClose(): void;
  children: ComponentChildren;
  wide?: boolean;
}

export function Dialog({ title, onClose, children, wide = false }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: a click beside it closes it, as Escape does
    <dialog
      ref={dialog}
      class={wide ? "wide" : undefined}
      aria-label={title}
      onClose={onClose}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <div class="dialog-body">
        <div class="dialog-head">
          <h2>
            <bdi>{title}</bdi>
          </h2>
          <button type="button" class="quiet" aria-label="Close" onClick={() => dialog.current?.close()}>
            <Icon name="close" />
          </button>
        </div>
        {children}
      </div>
    </dialog>
  );
}

interface ConfirmProps {
  /** On the button that asks. */
  label: string;
  question: string;
  consequence: string;
  onYes(): void;
  disabled?: boolean;
}

/** A button for what can't be undone. */
export function Confirm({ label, question, consequence, onYes, disabled = false }: ConfirmProps) {
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      <button type="button" class="danger" disabled={disabled} onClick={() => setOpen(true)}>
        {label}
      </button>
      {isOpen && (
        <Dialog title={question} onClose={() => setOpen(false)}>
          <p>{consequence}</p>
          <div class="actions end">
            <button type="button" onClick={() => setOpen(false)}>
              No, leave it
            </button>
            <button
              type="button"
              class="danger solid"
              onClick={() => {
                setOpen(false);
                onYes();
              }}
            >
              Yes, {label.toLowerCase()}
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}
