"use client";

import { useQuery } from "@tanstack/react-query";
import { useCallback, useMemo, useState } from "react";
import { api, unwrap } from "@/lib/api/client";
import type { Agent, Model } from "@/lib/api/types";
import type { Choice } from "../controller/conversation-state";

const STALE_MS = 5 * 60_000;

const MODEL_KEY = "concerto-model";

function rememberedModel(): string {
  try {
    return localStorage.getItem(MODEL_KEY) ?? "";
  } catch {
    return "";
  }
}

function rememberModel(name: string): void {
  try {
    localStorage.setItem(MODEL_KEY, name);
  } catch {
    // It holds for this page, then.
  }
}

export type Choices = {
  models: readonly Model[];
  agents: readonly Agent[];
  /** What a run is asked for; nothing where the configured one answers. */
  choice: Choice;
  model: string;
  agent: string;
  chooseModel: (name: string) => void;
  chooseAgent: (name: string) => void;
};

/**
 * Who can answer, and whom the person has chosen. The model is remembered in this browser; the agent is the chat's: the one
 * that answered in it last, until another is chosen, and the configured one where nobody has answered yet.
 *
 * chat: tells one chat from the next, also a new one. lastAgent: who has answered last in it; empty when nobody has.
 */
export function useChoices(chat: unknown, lastAgent: string): Choices {
  const models = useQuery({
    queryKey: ["models"],
    queryFn: ({ signal }) => unwrap(api.GET("/models", { signal })),
    staleTime: STALE_MS,
  });
  const agents = useQuery({
    queryKey: ["agents"],
    queryFn: ({ signal }) => unwrap(api.GET("/agents", { signal })),
    staleTime: STALE_MS,
  });
  const [wantedModel, setWantedModel] = useState(rememberedModel);
  const [chosenAgent, setChosenAgent] = useState<{ chat: unknown; name: string } | null>(null);
  const model = pick(models.data?.models, wantedModel);
  const wantedAgent = chosenAgent !== null && chosenAgent.chat === chat ? chosenAgent.name : lastAgent;
  const agent = pick(agents.data?.agents, wantedAgent);
  const chooseModel = useCallback((name: string) => {
    rememberModel(name);
    setWantedModel(name);
  }, []);
  const chooseAgent = useCallback((name: string) => setChosenAgent({ chat, name }), [chat]);
  const choice = useMemo<Choice>(
    () => ({
      ...(model !== undefined && !model.is_default && { model: model.name }),
      ...(agent !== undefined && !agent.is_default && { agent: agent.name }),
    }),
    [model, agent],
  );
  return {
    models: models.data?.models ?? [],
    agents: agents.data?.agents ?? [],
    choice,
    model: model?.name ?? "",
    agent: agent?.name ?? "",
    chooseModel,
    chooseAgent,
  };
}

/** The wanted one while it is still offered, else the configured one. */
function pick<T extends { name: string; is_default: boolean }>(offered: readonly T[] | undefined, wanted: string) {
  return offered?.find((one) => one.name === wanted) ?? offered?.find((one) => one.is_default);
}
