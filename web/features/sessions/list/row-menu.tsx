"use client";

import { Archive, ArchiveRestore, Ellipsis, Pencil, Trash2 } from "lucide-react";
import { useRef } from "react";
import {
  DropdownMenu,
  DropdownMenuContent,
  DropdownMenuItem,
  DropdownMenuSeparator,
  DropdownMenuTrigger,
} from "@/components/ui/dropdown-menu";
import type { Session } from "@/lib/api/types";
import { sentences } from "../sentences";
import { sessionTitle } from "../title";
import type { RowActions } from "./row-actions";

type RowMenuProps = { session: Session; actions: RowActions; tabIndex: number };

/** What can be done with a chat. */
export function RowMenu({ session, actions, tabIndex }: RowMenuProps) {
  // What was chosen decides where the focus goes; by itself it would go back to the button.
  const isChosen = useRef(false);
  const choose = (action: () => void) => () => {
    isChosen.current = true;
    action();
  };
  return (
    <DropdownMenu modal={false}>
      <DropdownMenuTrigger
        aria-label={sentences.row.options(sessionTitle(session))}
        tabIndex={tabIndex}
        className="absolute end-0.5 top-0.5 inline-flex size-7 pointer-coarse:top-2 items-center justify-center rounded-md text-ink-2 opacity-0 group-focus-within:opacity-100 group-hover:opacity-100 hover:bg-active hover:text-ink focus-visible:opacity-100 aria-expanded:opacity-100 pointer-coarse:opacity-100"
      >
        <Ellipsis className="size-4" aria-hidden />
      </DropdownMenuTrigger>
      <DropdownMenuContent
        align="start"
        onCloseAutoFocus={(event) => {
          if (isChosen.current) event.preventDefault();
          isChosen.current = false;
        }}
      >
        <DropdownMenuItem onSelect={choose(() => actions.startRename(session.id))}>
          <Pencil aria-hidden />
          {sentences.row.rename}
        </DropdownMenuItem>
        <DropdownMenuItem onSelect={choose(() => actions.archive(session))}>
          {session.is_archived ? <ArchiveRestore aria-hidden /> : <Archive aria-hidden />}
          {session.is_archived ? sentences.row.restore : sentences.row.archive}
        </DropdownMenuItem>
        <DropdownMenuSeparator />
        <DropdownMenuItem variant="destructive" onSelect={choose(() => actions.remove(session))}>
          <Trash2 aria-hidden />
          {sentences.row.delete}
        </DropdownMenuItem>
      </DropdownMenuContent>
    </DropdownMenu>
  );
}
