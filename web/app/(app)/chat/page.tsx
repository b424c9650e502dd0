import type { Metadata } from "next";
import { Suspense } from "react";
import { Conversation } from "@/features/conversation/conversation";
import { ConversationSkeleton } from "@/features/conversation/conversation-skeleton";
import { sentences } from "@/features/conversation/sentences";

export const metadata: Metadata = { title: sentences.title };

export default function ChatPage() {
  return (
    <Suspense fallback={<ConversationSkeleton />}>
      <Conversation />
    </Suspense>
  );
}
