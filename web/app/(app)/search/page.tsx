import type { Metadata } from "next";
import { Suspense } from "react";
import { SearchPage } from "@/features/search/search-page";
import { SearchSkeleton } from "@/features/search/search-skeleton";
import { sentences } from "@/features/search/sentences";

export const metadata: Metadata = { title: sentences.title };

export default function Page() {
  return (
    <Suspense fallback={<SearchSkeleton />}>
      <SearchPage />
    </Suspense>
  );
}
