import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { ResetPassword } from "@/features/account/reset-password";

export const metadata: Metadata = { title: "Choose a new password" };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title="Choose a new password" />}>
      <ResetPassword />
    </Suspense>
  );
}
