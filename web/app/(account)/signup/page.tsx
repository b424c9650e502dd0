import type { Metadata } from "next";
import { Suspense } from "react";
import { AccountFallback } from "@/components/account/account-fallback";
import { SignUpForm } from "@/components/account/sign-up-form";

export const metadata: Metadata = { title: "Sign up" };

export default function Page() {
  return (
    <Suspense fallback={<AccountFallback title="Create your account" />}>
      <SignUpForm />
    </Suspense>
  );
}
