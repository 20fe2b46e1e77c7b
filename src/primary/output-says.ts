// What becomes of a domain's output, said at the start and on change: whoever waits for a guest that is held looks for the
// fault in the guest.

import type { Logger } from '../report/log.js';
import type { LifeState } from './life-state.js';

const OUTPUT_IS = {
  alone: 'what the domain says is let out, unprotected: no other host may run it',
  asking: 'what the domain says is held until the witness says that no other host may run it',
  protected: 'what the domain says is let out, checkpoint by checkpoint',
} as const;

export class OutputSays {
  readonly #log: Logger;
  #said: keyof typeof OUTPUT_IS | null = null;

  constructor(log: Logger) {
    this.#log = log;
  }

  tell(state: LifeState): void {
    if (state.role !== 'primary' || state.stopped) return;
    const now = whatIs(state);
    if (now !== this.#said) this.#log[now === 'protected' ? 'info' : 'warn'](OUTPUT_IS[now]);
    this.#said = now;
  }
}

function whatIs(state: LifeState): keyof typeof OUTPUT_IS {
  // What is acknowledged leaves, also before the register names who has it.
  if (state.stream !== null && state.stream.acknowledged >= 0) return 'protected';
  return state.passing ? 'alone' : 'asking';
}
