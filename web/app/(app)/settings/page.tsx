import type { Metadata } from "next";
import { Suspense } from "react";
import { sentences } from "@/features/settings/sentences";
import { SettingsPage } from "@/features/settings/settings-page";

export const metadata: Metadata = { title: sentences.title };

export default function Page() {
  return (
    <Suspense>
      <SettingsPage />
    </Suspense>
  );
}
