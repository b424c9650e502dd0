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
      <div className="m-auto grid w-full max-w-180 gap-6">
        <div className="grid gap-1 text-center">
          <h2 className="type-display">{sentences.newChat.heading}</h2>
          <p className="text-[0.9375rem] leading-6 text-ink-2">{sentences.newChat.hint}</p>
        </div>
        <ul className="grid gap-3 sm:grid-cols-3">
          {SUGGESTIONS.map(({ title, text }) => (
            <li key={title} className="flex">
              <button
                type="button"
                onClick={() => onSuggest(text)}
                className="flex-1 rounded-xl bg-raised p-4 text-start text-sm text-ink shadow-1 transition-colors hover:bg-hover"
              >
                <span className="block font-medium">{title}</span>
                <span className="mt-1 block text-ink-2">{text.trim()}</span>
              </button>
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}
