import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { Callback } from "@/features/account/callback";
import { sentences } from "@/features/account/sentences";

export const metadata: Metadata = { title: sentences.titles.callback };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title={sentences.titles.callback} />}>
      <Callback />
    </Suspense>
  );
}
