// What becomes of a hook.

import type { HookEvent } from './events.js';

export type HookKind = 'command' | 'webhook';
/** `cancelled`: the service stopped, or the queue was full. */
export type HookResult = 'success' | 'failure' | 'timeout' | 'cancelled';

/** What one attempt, or a row of them, came to. */
export interface HookRun {
  readonly result: HookResult;
  /** What an operator needs to know: exit code, signal, HTTP status, the command's last words. */
  readonly details: Readonly<Record<string, string | number | null>>;
}

export interface HookOutcome extends HookRun {
  readonly hook: HookKind;
  readonly event: HookEvent['event'];
  readonly domain: string;
  readonly seconds: number;
}
