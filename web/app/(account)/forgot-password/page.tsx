import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { ForgotPasswordForm } from "@/features/account/forgot-password-form";

export const metadata: Metadata = { title: "Forgot your password?" };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title="Forgot your password?" />}>
      <ForgotPasswordForm />
    </Suspense>
  );
}
