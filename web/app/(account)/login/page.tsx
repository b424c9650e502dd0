import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { LogInForm } from "@/features/account/log-in-form";
import { sentences } from "@/features/account/sentences";

export const metadata: Metadata = { title: sentences.titles.logIn };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title={sentences.titles.logIn} />}>
      <LogInForm />
    </Suspense>
  );
}
