import { Home } from "@/features/shell/home";

export default function HomePage() {
  return <Home />;
}
