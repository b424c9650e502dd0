"use client";

import { useState } from "react";
import { Input } from "@/components/ui/input";
import { SessionList } from "./list/session-list";
import { useDebounced } from "@/lib/use-debounced";

/** The chats that were put away. */
export function ArchivePage() {
  const [filter, setFilter] = useState("");
  const query = useDebounced(filter);
  return (
    <div className="mx-auto grid w-full max-w-2xl grid-cols-1 gap-4 p-4 md:p-8">
      <header className="grid gap-1">
        <h1 className="font-serif text-2xl">Archive</h1>
        <p className="text-sm text-muted-foreground">
          Chats that are out of the way. They can still be opened, continued and searched.
        </p>
      </header>
      <Input
        type="search"
        aria-label="Filter archive"
        placeholder="Filter archive"
        value={filter}
        maxLength={200}
        autoComplete="off"
        onChange={(event) => setFilter(event.target.value)}
      />
      <SessionList archived query={query} className="-mx-3 sm:mx-0" />
    </div>
  );
}
