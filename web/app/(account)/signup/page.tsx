import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { sentences } from "@/features/account/sentences";
import { SignUpForm } from "@/features/account/sign-up-form";

export const metadata: Metadata = { title: sentences.titles.signUp };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title={sentences.titles.createAccount} />}>
      <SignUpForm />
    </Suspense>
  );
}
