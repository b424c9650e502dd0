import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { Callback } from "@/features/account/callback";

export const metadata: Metadata = { title: "Signing you in" };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title="Signing you in" />}>
      <Callback />
    </Suspense>
  );
}
