import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { ForgotPasswordForm } from "@/features/account/forgot-password-form";
import { sentences } from "@/features/account/sentences";

export const metadata: Metadata = { title: sentences.titles.forgotPassword };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title={sentences.titles.forgotPassword} />}>
      <ForgotPasswordForm />
    </Suspense>
  );
}
