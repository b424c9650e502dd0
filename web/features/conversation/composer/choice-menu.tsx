import { ChevronDown } from "lucide-react";
import { Button } from "@/components/ui/button";
import {
  DropdownMenu,
  DropdownMenuContent,
  DropdownMenuRadioGroup,
  DropdownMenuRadioItem,
  DropdownMenuTrigger,
} from "@/components/ui/dropdown-menu";

type ChoiceMenuProps = {
  label: string;
  options: readonly { name: string; description?: string }[];
  value: string;
  onChange: (name: string) => void;
};

/** Chooses who answers; there only when there is a choice. */
export function ChoiceMenu({ label, options, value, onChange }: ChoiceMenuProps) {
  if (options.length < 2) return null;
  return (
    <DropdownMenu modal={false}>
      <DropdownMenuTrigger asChild>
        <Button
          variant="ghost"
          size="sm"
          title={`${label}: ${value}`}
          className="min-w-0 shrink px-2 font-normal text-ink-2"
        >
          <span className="sr-only">{label}</span>
          <span className="truncate">{value}</span>
          <ChevronDown aria-hidden />
        </Button>
      </DropdownMenuTrigger>
      <DropdownMenuContent align="start" className="max-w-80">
        <DropdownMenuRadioGroup value={value} onValueChange={onChange}>
          {options.map((option) => (
            <DropdownMenuRadioItem key={option.name} value={option.name}>
              <span className="min-w-0">
                <span className="block truncate">{option.name}</span>
                {option.description ? <span className="block text-xs text-ink-2">{option.description}</span> : null}
              </span>
            </DropdownMenuRadioItem>
          ))}
        </DropdownMenuRadioGroup>
      </DropdownMenuContent>
    </DropdownMenu>
  );
}
