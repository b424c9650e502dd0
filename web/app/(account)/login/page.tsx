import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { LogInForm } from "@/features/account/log-in-form";

export const metadata: Metadata = { title: "Log in" };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title="Log in" />}>
      <LogInForm />
    </Suspense>
  );
}
