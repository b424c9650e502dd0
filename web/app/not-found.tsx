import type { Metadata } from "next";
import Link from "next/link";
import { buttonVariants } from "@/components/ui/button";
import { Brand } from "@/features/shell/brand";
import { paths } from "@/lib/paths";
import { sentences } from "./sentences";

export const metadata: Metadata = { title: sentences.notFound.title };

export default function NotFound() {
  return (
    <main className="grid min-h-dvh place-content-center justify-items-center gap-4 p-6 text-center">
      <Brand className="mb-2" />
      <h1 className="type-title">{sentences.notFound.heading}</h1>
      <p className="max-w-prose text-balance text-ink-2">{sentences.notFound.explanation}</p>
      <Link href={paths.home} className={buttonVariants()}>
        {sentences.goToChats}
      </Link>
    </main>
  );
}
