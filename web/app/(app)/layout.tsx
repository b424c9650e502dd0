import { type ReactNode, Suspense } from "react";
import { AppShell } from "@/features/shell/app-shell";
import { ShellSkeleton } from "@/features/shell/shell-skeleton";

export default function AppLayout({ children }: { children: ReactNode }) {
  return (
    <Suspense fallback={<ShellSkeleton />}>
      <AppShell>{children}</AppShell>
    </Suspense>
  );
}
