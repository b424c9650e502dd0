"use client";

import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import { sentences } from "./sentences";

/** The inline form that renames a chat: Enter or leaving it saves, Esc leaves the name as it was. */
export function SessionNameForm({
  name,
  onSave,
  onClose,
}: {
  name: string;
  onSave: (name: string) => void;
  /** `byKeyboard` when the focus should go back to the row. */
  onClose: (byKeyboard: boolean) => void;
}) {
  const [value, setValue] = useState(name);
  const input = useRef<HTMLInputElement>(null);
  const isClosed = useRef(false);

  useEffect(() => {
    input.current?.focus();
    input.current?.select();
  }, []);

  function close(save: boolean, byKeyboard: boolean) {
    // Taking the field away makes it lose the focus, which must not save a second time (or after Esc).
    if (isClosed.current) return;
    isClosed.current = true;
    const wanted = value.trim();
    if (save && wanted && wanted !== name) onSave(wanted);
    onClose(byKeyboard);
  }

  function submit(event: FormEvent) {
    event.preventDefault();
    close(true, true);
  }

  function keyDown(event: KeyboardEvent) {
    // The list around it has its own keys.
    event.stopPropagation();
    if (event.key !== "Escape") return;
    event.preventDefault();
    close(false, true);
  }

  return (
    <form onSubmit={submit} className="flex-1">
      <input
        ref={input}
        dir="auto"
        aria-label={sentences.row.name}
        data-keeps-escape
        value={value}
        maxLength={200}
        autoComplete="off"
        enterKeyHint="done"
        onChange={(event) => setValue(event.target.value)}
        onKeyDown={keyDown}
        onBlur={() => close(true, false)}
        className="h-9 w-full rounded-lg border border-edge bg-raised px-2 text-base sm:text-sm"
      />
    </form>
  );
}
