import type { Metadata } from "next";
import Link from "next/link";
import { Brand } from "@/features/shell/brand";
import { buttonVariants } from "@/components/ui/button";
import { paths } from "@/lib/paths";

export const metadata: Metadata = { title: "Page not found" };

export default function NotFound() {
  return (
    <main className="grid min-h-dvh place-content-center justify-items-center gap-4 p-6 text-center">
      <Brand className="mb-2" />
      <h1 className="font-serif text-2xl">There is no page here</h1>
      <p className="max-w-prose text-balance text-muted-foreground">
        The address may be misspelt, or the page may have moved. Your chats are where they were.
      </p>
      <Link href={paths.home} className={buttonVariants()}>
        Go to your chats
      </Link>
    </main>
  );
}
