import type { Metadata } from "next";
import { ArchivePage } from "@/features/sessions/archive/archive-page";
import { sentences } from "@/features/sessions/archive/sentences";

export const metadata: Metadata = { title: sentences.title };

export default function Page() {
  return <ArchivePage />;
}
