"use client";

import { useState } from "react";
import { Input } from "@/components/ui/form/input";
import { useDebounced } from "@/lib/use-debounced";
import { SessionList } from "../list/session-list";
import { sentences } from "./sentences";

/** The chats that were put away. */
export function ArchivePage() {
  const [filter, setFilter] = useState("");
  const query = useDebounced(filter);
  return (
    <div className="mx-auto grid w-full max-w-2xl grid-cols-1 gap-4 p-4 md:p-8">
      <header className="grid gap-1">
        <h1 className="type-title">{sentences.title}</h1>
        <p className="text-sm text-ink-2">{sentences.description}</p>
      </header>
      <Input
        type="search"
        dir="auto"
        aria-label={sentences.filter}
        placeholder={sentences.filter}
        value={filter}
        maxLength={200}
        autoComplete="off"
        onChange={(event) => setFilter(event.target.value)}
      />
      <SessionList archived query={query} className="-mx-3 sm:mx-0" />
    </div>
  );
}
