"use client";

import { Pencil } from "lucide-react";
import { memo, useEffect, useRef, useState } from "react";
import { Button } from "@/components/ui/button";
import { useRenameSession } from "@/features/sessions/data/mutations";
import { useSession } from "@/features/sessions/data/queries";
import { SessionNameForm } from "@/features/sessions/session-name-form";
import { sessionTitle } from "@/features/sessions/title";
import { pageTitle } from "@/lib/app-name";
import { sentences } from "./sentences";
import { ChatMenu } from "./whole/chat-menu";

/** The chat's name, and the form that changes it. */
export const ConversationHeader = memo(function ConversationHeader({ sessionId }: { sessionId: string | null }) {
  const { data: session } = useSession(sessionId);
  const { mutate: rename } = useRenameSession();
  const [renamed, setRenamed] = useState<string | null>(null);
  const button = useRef<HTMLButtonElement>(null);
  const title = sessionTitle(session);
  const isRenaming = session !== undefined && renamed === session.id;
  useEffect(() => {
    document.title = pageTitle(title);
  }, [title]);
  return (
    <header className="flex h-12 shrink-0 items-center gap-1 border-b px-4">
      <h1 dir="auto" className={isRenaming ? "sr-only" : "min-w-0 truncate text-sm font-medium"}>
        {title}
      </h1>
      {isRenaming ? (
        <SessionNameForm
          name={session.name}
          onSave={(name) => rename({ session, name })}
          onClose={(byKeyboard) => {
            setRenamed(null);
            if (byKeyboard) requestAnimationFrame(() => button.current?.focus());
          }}
        />
      ) : null}
      {session !== undefined && !isRenaming ? (
        <Button
          ref={button}
          variant="ghost"
          size="icon"
          className="size-8 shrink-0 text-ink-2"
          aria-label={sentences.page.rename}
          onClick={() => setRenamed(session.id)}
        >
          <Pencil aria-hidden />
        </Button>
      ) : null}
      {session?.is_archived ? <span className="ms-auto text-xs text-ink-2">{sentences.page.archived}</span> : null}
      {session !== undefined && !isRenaming ? <ChatMenu sessionId={session.id} /> : null}
    </header>
  );
});
