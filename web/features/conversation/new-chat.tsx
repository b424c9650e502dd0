import { sentences } from "./sentences";

const SUGGESTIONS = [
  { title: sentences.newChat.explain, text: sentences.newChat.explainText },
  { title: sentences.newChat.improve, text: sentences.newChat.improveText },
  { title: sentences.newChat.plan, text: sentences.newChat.planText },
];

/** What a new chat shows: what to do, and three ways to begin. */
export function NewChat({ onSuggest }: { onSuggest: (text: string) => void }) {
  return (
    <div className="flex min-h-0 flex-1 flex-col overflow-y-auto p-4">
      {/* Centred by its margins: higher than the window, it can still be scrolled to its top. */}
      <div className="m-auto grid w-full max-w-3xl gap-6">
        <div className="grid gap-1 text-center">
          <h2 className="font-serif text-2xl text-balance">{sentences.newChat.heading}</h2>
          <p className="text-sm text-muted-foreground">{sentences.newChat.hint}</p>
        </div>
        <ul className="grid gap-3 sm:grid-cols-3">
          {SUGGESTIONS.map(({ title, text }) => (
            <li key={title} className="flex">
              <button
                type="button"
                onClick={() => onSuggest(text)}
                className="flex-1 rounded-xl border bg-card p-4 text-left text-sm text-card-foreground transition-colors hover:bg-accent"
              >
                <span className="block font-medium">{title}</span>
                <span className="mt-1 block text-muted-foreground">{text.trim()}</span>
              </button>
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}
