// What one stream owes the world: how far it was captured, how far acknowledged, and so what may be let out. A pure
// function: no clock, no I/O, no randomness.
//
//   captured      0   1   2   3          acknowledged 1: what the domain said in 0 and 1 may leave
//   acknowledged  0   1   ·   ·          window: 2 and 3 are under way
//   END                           4      acknowledged last: the secondary will never take over
//   hand over     ┄┄┄ three more at once, then the last: the domain stands still behind it, and the secondary goes on from there
//
// A stopped process (SIGSTOP, a paused host) finds old acknowledgements in its socket when it goes on, and the
// secondary may have taken over meanwhile. So after a gap in time, acknowledgements of epochs that were captured
// before the gap release nothing; the next one, of an epoch captured after it, proves that the standby still is one.
//
// So it is with a network that stood still: after a silence of the secondary's, what comes first is what was sent before it,
// and the secondary, which heard nothing of us either, may have taken over.

import { ChannelError } from '../channel/contract.js';

export type Entry =
  /** The domain is about to be suspended for the epoch: whoever asked for a checkpoint gets this one. */
  | { readonly kind: 'suspending' }
  /** … and is, from here on: all that can be done before is done. */
  | { readonly kind: 'stopping' }
  /** The epoch is captured whole, the domain is about to go on. */
  | { readonly kind: 'captured'; readonly epoch: number }
  /** The END record leaves; its acknowledgement will name this epoch. */
  | { readonly kind: 'ending'; readonly epoch: number }
  | { readonly kind: 'acknowledged'; readonly epoch: number }
  /** A checkpoint is wanted ahead of the interval. */
  | { readonly kind: 'requested' }
  /** Anything came from the secondary. */
  | { readonly kind: 'heard' }
  /** The domain is to be handed over to the secondary. */
  | { readonly kind: 'hand-over' }
  /** Nothing happened, but we live. */
  | { readonly kind: 'beat' };

/** May be let out, but only so long: a process that was stopped until later must not carry it out. */
export interface Release {
  readonly epoch: number;
  /** Monotonic milliseconds. */
  readonly untilMs: number;
}

export interface Ledger {
  /** What the last entry was. */
  readonly last: Entry['kind'] | 'opened';
  /** When it was made, monotonic milliseconds. */
  readonly atMs: number;
  /** The secondary says something at least so often, milliseconds. */
  readonly silenceMs: number;
  /** When it did, monotonic milliseconds. */
  readonly heardAtMs: number;
  /** The last epoch captured whole; -1: none. */
  readonly captured: number;
  /** When that was. */
  readonly capturedAtMs: number;
  /** The last epoch acknowledged; -1: none. */
  readonly acknowledged: number;
  /** END has left, as the epoch after the last; null: the stream goes on. */
  readonly endEpoch: number | null;
  /** Behind this epoch the domain is handed over: no other is captured; null: the stream goes on. */
  readonly lastEpoch: number | null;
  /** Acknowledgements of epochs up to this one may be older than a stop, of this process or the network: they release nothing. */
  readonly staleEpoch: number;
  /** A checkpoint is wanted ahead of the interval. */
  readonly requested: boolean;
  /** What the last entry lets out. */
  readonly release: Release | null;
}

export function openLedger(atMs: number, silenceMs = Infinity): Ledger {
  return {
    last: 'opened',
    atMs,
    silenceMs,
    heardAtMs: atMs,
    captured: -1,
    capturedAtMs: atMs,
    acknowledged: -1,
    endEpoch: null,
    lastEpoch: null,
    staleEpoch: -1,
    requested: false,
    release: null,
  };
}

/** The oldest epoch, END's too, that is not acknowledged; null: there is none. */
export function owed({ captured, endEpoch, acknowledged }: Ledger): number | null {
  return acknowledged < (endEpoch ?? captured) ? acknowledged + 1 : null;
}

/**
 * Before the last checkpoint: what the interval has left, or is under way; one that the secondary tries whether it can be
 * started from, so that a standby that is of no use is found before the domain stands still for it; and what has changed until
 * that is done, which is tried, too: a hypervisor that has just loaded a state loads the next one in half the time.
 */
const BEFORE_LAST = 3;
const TRIALS_BEFORE_LAST = 2;

/** What is special about an epoch of a domain that is handed over. */
export type Mark = 'trial' | 'last' | null;

/** Whether there is room for the next epoch, and a reason. `isDue`: the interval is over. */
export function isNext(ledger: Ledger, isDue: boolean, windowEpochs: number): boolean {
  const { captured, acknowledged, requested, lastEpoch } = ledger;
  if (isHandedOver(ledger)) return false;
  // Before the last one nothing is under way: what the secondary would be at then, the domain would wait for.
  if (lastEpoch !== null) return captured === acknowledged;
  return (isDue || requested) && captured - acknowledged < windowEpochs;
}

export function markOfNext({ captured, lastEpoch }: Ledger): Mark {
  if (lastEpoch === null) return null;
  const left = lastEpoch - captured - 1;
  if (left === 0) return 'last';
  return left <= TRIALS_BEFORE_LAST ? 'trial' : null;
}

/** The last epoch is captured. */
export function isHandedOver({ captured, lastEpoch }: Ledger): boolean {
  return captured === lastEpoch;
}

/**
 * `stallMs`: this process was stopped if nothing is entered for longer.
 * @throws ChannelError BAD_MESSAGE: an acknowledgement out of turn
 */
export function enter(before: Ledger, entry: Entry, atMs: number, stallMs: number): Ledger {
  const heard = entry.kind === 'heard' || entry.kind === 'acknowledged';
  const stood = atMs - before.atMs > stallMs || (heard && atMs - before.heardAtMs > before.silenceMs);
  const staleEpoch = stood ? before.captured : before.staleEpoch;
  const heardAtMs = heard ? atMs : before.heardAtMs;
  const ledger: Ledger = { ...before, last: entry.kind, atMs, heardAtMs, staleEpoch, release: null };
  switch (entry.kind) {
    case 'beat':
    case 'heard':
    case 'stopping':
      return ledger;
    case 'requested':
      return { ...ledger, requested: true };
    case 'hand-over':
      // Whatever is under way, or was left to the interval, is done before the last one, which has next to nothing to bring.
      return { ...ledger, lastEpoch: before.lastEpoch ?? before.captured + BEFORE_LAST + 1 };
    case 'suspending':
      return { ...ledger, requested: false };
    case 'captured':
      return { ...ledger, captured: entry.epoch, capturedAtMs: atMs };
    case 'ending':
      return { ...ledger, endEpoch: entry.epoch };
    case 'acknowledged':
      return acknowledge(ledger, entry.epoch, stallMs);
  }
}

function acknowledge(ledger: Ledger, epoch: number, stallMs: number): Ledger {
  const expected = owed(ledger);
  if (epoch !== expected) {
    const due = expected === null ? 'none was expected' : `${expected} was expected`;
    throw new ChannelError('BAD_MESSAGE', `epoch ${epoch} was acknowledged, ${due}`, { epoch, expected });
  }
  // What the domain said last, behind END, whoever ends the stream lets out.
  const fresh = epoch > ledger.staleEpoch && epoch !== ledger.endEpoch;
  const release = fresh ? { epoch, untilMs: ledger.atMs + stallMs } : null;
  return { ...ledger, acknowledged: epoch, release };
}
