// A write to the register, until its outcome is known. A witness that does not answer may have done what it was asked
// for; to take that for a no would let two hosts run, or none.
//
//   attempt ─▶ won ─────────────────────────────────▶ won
//      │  └──▶ lost ─▶ read ─▶ what we wrote ───────▶ won      an earlier attempt had got through
//      │                 │ └─▶ something later ─────▶ lost
//      │                 └───▶ what we expected, or less: the witness contradicts itself, so from the start again
//      └─ no answer: wait, and again with the same token
//
// Only the first of the attempts can change anything: the others find that the register is not what they expect.

import { setTimeout as sleep } from 'node:timers/promises';
import { asError, codeOf } from '../errors.js';
import { backoffMs, spreadMs } from '../flow/backoff.js';
import { WitnessError } from './error.js';
import {
  sameRegister,
  written,
  type Register,
  type RegisterWitness,
  type RegisterWrite,
} from './register.js';

const BACKOFF = { firstMs: 50, maxMs: 2000 };

/** These do not pass: the caller is wrong, or has had enough. */
const FINAL: ReadonlySet<string> = new Set(['BAD_CLAIM', 'CLOSED', 'ABORTED']);

export interface SettleFailure {
  readonly step: 'write' | 'read';
  readonly error: Error;
  /** 1, 2, … */
  readonly failures: number;
  /** Until the next attempt, milliseconds. */
  readonly waitMs: number;
}

export interface SettleOptions {
  /** Ends it; the outcome stays unknown then, and what was asked for may still come true. */
  readonly signal?: AbortSignal;
  readonly backoff?: { readonly firstMs: number; readonly maxMs: number };
  /** Of each attempt that failed, before the wait for the next. */
  readonly onFailure?: (failure: SettleFailure) => void;
}

/** Of a write that is lost: `register` is what it is now, which is not, or not any more, what was to be written. */
export interface Settled {
  readonly won: boolean;
  readonly register: Register;
}

/**
 * Resolves when it is known whether the register has become what the write says: however long that takes. The token must
 * be of this write alone; the same write with the same token may be settled again.
 * @throws WitnessError ABORTED, CLOSED: not known; BAD_CLAIM: not written
 */
export async function settle(
  witness: RegisterWitness,
  domain: string,
  write: RegisterWrite,
  options: SettleOptions = {},
): Promise<Settled> {
  const { signal, backoff = BACKOFF, onFailure } = options;
  const { expected, claim, token } = write;
  let step: SettleFailure['step'] = 'write';
  for (let failures = 1; ; failures++) {
    try {
      for (;;) {
        const answer: RegisterAnswer =
          step === 'write'
            ? await witness.compareAndSet(domain, expected, claim, token, signal)
            : { register: await witness.read(domain, signal) };
        const settled = settledBy(write, answer);
        if (typeof settled === 'object') return settled;
        step = settled === 'read' ? 'read' : 'write';
        if (settled === 'contradiction') throw contradiction(answer, expected);
      }
    } catch (thrown) {
      const error = asError(thrown);
      if (FINAL.has(codeOf(error))) throw error;
      const waitMs = spreadMs(backoffMs(backoff.firstMs, backoff.maxMs, failures - 1), Math.random());
      onFailure?.({ step, error, failures, waitMs });
      await pause(waitMs, signal);
    }
  }
}

/** What the witness says to a write, or when it is asked what became of it. */
export type RegisterAnswer = 'won' | 'lost' | { readonly register: Register | null };

/**
 * What follows from an answer: the outcome; or 'read': it must be asked; or 'contradiction': it answers what cannot be,
 * and is asked from the start again. Pure.
 */
export function settledBy(write: RegisterWrite, answer: RegisterAnswer): Settled | 'read' | 'contradiction' {
  if (answer === 'won') return { won: true, register: written(write) };
  if (answer === 'lost') return 'read';
  const { register } = answer;
  if (sameRegister(register, written(write))) return { won: true, register: written(write) };
  return register !== null && isLater(register, write.expected) ? { won: false, register } : 'contradiction';
}

function isLater(register: Register, expected: Register | null): boolean {
  if (expected === null) return true;
  if (register.generation !== expected.generation) return register.generation > expected.generation;
  return register.token !== expected.token;
}

/**
 * A register never goes back. A view that is old passes; a witness that has lost what it knew does not, until somebody
 * looks after it, and until then nothing follows from what it says.
 */
function contradiction(answer: RegisterAnswer, expected: Register | null): WitnessError {
  const register = typeof answer === 'object' ? answer.register : null;
  return new WitnessError(
    'CORRUPT',
    'the witness refuses a write, and shows nothing later than what it was to follow',
    {
      shown: register?.generation ?? null,
      expected: expected?.generation ?? null,
    },
  );
}

/** @throws WitnessError ABORTED */
async function pause(waitMs: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(waitMs, undefined, signal && { signal });
  } catch (cause) {
    // It is cut short for one reason only.
    throw new WitnessError('ABORTED', 'given up before the outcome of a write was known', {}, { cause });
  }
}
