import path from "node:path";
import type { NextConfig } from "next";

// One export serves every deployment: addresses and keys come from /config.json at run time, never from the build.
const config: NextConfig = {
  output: "export",
  trailingSlash: true,
  images: { unoptimized: true },
  poweredByHeader: false,
  reactStrictMode: true,
  turbopack: { root: path.resolve(import.meta.dirname) },
};

export default config;
