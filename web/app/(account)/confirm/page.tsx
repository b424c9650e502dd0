import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { Confirm } from "@/features/account/confirm";
import { sentences } from "@/features/account/sentences";

export const metadata: Metadata = { title: sentences.titles.confirm };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title={sentences.titles.confirm} />}>
      <Confirm />
    </Suspense>
  );
}
