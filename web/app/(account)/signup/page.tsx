import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/features/account/account-fallback";
import { SignUpForm } from "@/features/account/sign-up-form";

export const metadata: Metadata = { title: "Sign up" };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title="Create your account" />}>
      <SignUpForm />
    </Suspense>
  );
}
