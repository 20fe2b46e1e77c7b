// Calls to the worker that a machine lives in, and its answers. Calls may overlap; the worker answers them in order.

import { HypervisorError } from '../port.js';
import type { CallMessage, CallName, Calls, ErrorMessage, WorkerMessage } from './messages.js';

type Answer = Extract<WorkerMessage, { kind: 'result' | 'failed' }>;

interface Pending {
  readonly settle: (result: Calls[CallName]['result']) => void;
  readonly reject: (error: HypervisorError) => void;
}

export class WorkerCalls {
  readonly #post: (message: CallMessage) => void;
  readonly #refusal: (name: CallName) => HypervisorError | null;
  readonly #pending = new Map<number, Pending>();
  #next = 0;

  /** `refusal`: why this call cannot be made any more; null: it can. */
  constructor(post: (message: CallMessage) => void, refusal: (name: CallName) => HypervisorError | null) {
    this.#post = post;
    this.#refusal = refusal;
  }

  call<K extends CallName>(name: K, argument: Calls[K]['argument']): Promise<Calls[K]['result']> {
    const refusal = this.#refusal(name);
    if (refusal) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#pending.set(id, { settle: resolve, reject });
      this.#post({ id, name, argument } satisfies CallMessage<K>);
    });
  }

  answered(answer: Answer): void {
    const call = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if (answer.kind === 'result') call?.settle(answer.result);
    else call?.reject(errorOf(answer.error));
  }

  /** Nothing more is answered. */
  rejectAll(error: HypervisorError): void {
    const calls = [...this.#pending.values()];
    this.#pending.clear();
    for (const call of calls) call.reject(error);
  }
}

/** As it was before it travelled. */
export function errorOf({ code, message, facts, cause }: ErrorMessage): HypervisorError {
  const options = cause === undefined ? undefined : { cause: new Error(cause) };
  return new HypervisorError(code, message, facts, options);
}
