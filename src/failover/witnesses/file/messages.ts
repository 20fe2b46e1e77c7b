// What the agent and the process that works in the directory say to each other, over Node's own channel.

import type { Facts } from '../../../errors.js';
import type { WitnessErrorCode } from '../../error.js';
import type { Register, RegisterWrite } from '../../register.js';

export interface FileQuestion {
  readonly id: number;
  readonly directory: string;
  readonly domain: string;
  /** Null: read. */
  readonly write: RegisterWrite | null;
}

export type FileAnswer = { readonly id: number } & (
  | { readonly kind: 'read'; readonly register: Register | null }
  | { readonly kind: 'write'; readonly outcome: 'won' | 'lost' }
  | {
      readonly kind: 'error';
      readonly code: WitnessErrorCode;
      readonly message: string;
      readonly facts: Facts;
    }
);
