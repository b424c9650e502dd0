import type { Metadata } from "next";
import { Suspense } from "react";
import { Conversation } from "@/features/conversation/conversation";
import { ConversationSkeleton } from "@/features/conversation/conversation-skeleton";

export const metadata: Metadata = { title: "Chat" };

export default function ChatPage() {
  return (
    <Suspense fallback={<ConversationSkeleton />}>
      <Conversation />
    </Suspense>
  );
}
