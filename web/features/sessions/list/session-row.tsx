"use client";

import { memo } from "react";
import type { Session } from "@/lib/api/types";
import { paths } from "@/lib/paths";
import { cn } from "@/lib/utils";
import { SessionNameForm } from "../session-name-form";
import { sessionTitle } from "../title";
import { isPlainClick } from "../use-open-chat";
import type { RowActions } from "./row-actions";
import { RowMenu } from "./row-menu";

type SessionRowProps = {
  session: Session;
  actions: RowActions;
  isCurrent: boolean;
  isRenaming: boolean;
  /** Only one row of a list is a stop of the Tab key; the arrow keys reach the others. */
  isTabStop: boolean;
};

/** One chat in a list: its link and its menu, or the form that renames it. */
export const SessionRow = memo(function SessionRow({
  session,
  actions,
  isCurrent,
  isRenaming,
  isTabStop,
}: SessionRowProps) {
  const title = sessionTitle(session);
  const tabIndex = isTabStop ? 0 : -1;

  if (isRenaming) {
    return (
      <li className="flex">
        <SessionNameForm
          name={session.name}
          onSave={(name) => actions.rename(session, name)}
          onClose={(byKeyboard) => actions.endRename(session.id, byKeyboard)}
        />
      </li>
    );
  }

  return (
    <li
      className={cn(
        "group relative flex rounded-md focus-within:bg-desk-hover hover:bg-desk-hover",
        isCurrent && "current-bar bg-sheet font-medium shadow-1 focus-within:bg-sheet hover:bg-sheet",
      )}
    >
      <a
        href={paths.chat(session.id)}
        data-session-id={session.id}
        dir="auto"
        aria-current={isCurrent ? "page" : undefined}
        tabIndex={tabIndex}
        title={title.length > 28 ? title : undefined}
        onFocus={() => actions.focus(session.id)}
        onClick={(event) => {
          if (!isPlainClick(event)) return;
          event.preventDefault();
          actions.open(session);
        }}
        className="h-8 min-w-0 flex-1 truncate rounded-md ps-3 pe-9 text-sm leading-8 pointer-coarse:h-11 pointer-coarse:leading-11 focus-visible:outline-offset-[-2px]"
      >
        {title}
      </a>
      <RowMenu session={session} actions={actions} tabIndex={tabIndex} />
    </li>
  );
});
