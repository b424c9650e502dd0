import { Button } from "@/components/ui/button";
import { RichText } from "@/components/ui/rich-text";
import { sentences } from "../sentences";

type QuestionProps = {
  /** Who is signed in; null for nobody. */
  current: string | null;
  /** Whom the link would sign in. */
  linked: string;
  isUnderWay?: boolean;
  onContinue: () => void;
  onStay: () => void;
};

// An address may be longer than a phone is wide.
const WRAPPING = "h-auto min-h-9 max-w-full py-1.5 text-start whitespace-normal wrap-anywhere";

/** Asks before a link signs somebody in: it can be anybody's, and nobody shall write into a stranger's account. */
export function Question({ current, linked, isUnderWay = false, onContinue, onStay }: QuestionProps) {
  const account = <strong className="wrap-anywhere">{linked}</strong>;
  return (
    <>
      <p className="text-sm">
        {current === null ? (
          <RichText sentence={sentences.callback.signsIn} parts={{ linked: account }} />
        ) : (
          <RichText
            sentence={sentences.callback.otherAccount}
            parts={{ current: <strong className="wrap-anywhere">{current}</strong>, linked: account }}
          />
        )}
      </p>
      <div className="flex flex-wrap gap-2">
        <Button className={WRAPPING} loading={isUnderWay} onClick={onContinue}>
          {sentences.callback.continueAs(linked)}
        </Button>
        <Button className={WRAPPING} variant="outline" disabled={isUnderWay} onClick={onStay}>
          {current === null ? sentences.callback.notNow : sentences.callback.stay(current)}
        </Button>
      </div>
    </>
  );
}
