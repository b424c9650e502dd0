import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { ResetPassword } from "@/features/account/reset-password";
import { sentences } from "@/features/account/sentences";

export const metadata: Metadata = { title: sentences.titles.resetPassword };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title={sentences.titles.resetPassword} />}>
      <ResetPassword />
    </Suspense>
  );
}
