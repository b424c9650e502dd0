import Link from "next/link";
import type { ReactNode } from "react";
import { Brand } from "@/features/shell/brand";
import { paths } from "@/lib/paths";

/** The frame of the pages for signing in: the name of the app, and a narrow column. */
export default function AccountLayout({ children }: { children: ReactNode }) {
  return (
    <div className="grid min-h-dvh grid-cols-1 grid-rows-[auto_1fr] px-4 py-6">
      <header className="mx-auto w-full max-w-sm">
        <Link href={paths.logIn} className="inline-block rounded-sm">
          <Brand />
        </Link>
      </header>
      <main className="mx-auto w-full max-w-sm pt-[8vh] pb-12">{children}</main>
    </div>
  );
}
