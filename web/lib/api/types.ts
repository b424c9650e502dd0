/** The contract's types by their names; schema.d.ts is generated from the gateway's OpenAPI document. */
import type { components } from "./schema";

type Schemas = components["schemas"];

export type User = Schemas["User"];
export type Profile = Schemas["Profile"];
export type Theme = Schemas["Theme"];
export type AuthSession = Schemas["AuthSession"];
export type OtpType = Schemas["OtpType"];
export type SocialProvider = Schemas["SocialProvider"];
export type Session = Schemas["Session"];
export type AnswerUnderWay = Schemas["AnswerUnderWay"];
export type Message = Schemas["Message"];
export type MessageHit = Schemas["MessageHit"];
export type Run = Schemas["Run"];
export type RunState = Schemas["RunState"];
export type Usage = Schemas["Usage"];
export type UsageEntry = Schemas["UsageEntry"];
export type Agent = Schemas["Agent"];
export type Model = Schemas["Model"];
export type ErrorBody = Schemas["ErrorBody"];
export type RunStarted = Schemas["RunStarted"];
export type MessageDelta = Schemas["MessageDelta"];
export type ReasoningDelta = Schemas["ReasoningDelta"];
export type MessageCompleted = Schemas["MessageCompleted"];
export type ToolStarted = Schemas["ToolStarted"];
export type ToolFinished = Schemas["ToolFinished"];
export type RunError = Schemas["RunError"];
export type RunFinished = Schemas["RunFinished"];
